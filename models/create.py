"""From a name to a decoder, on any feature maps."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import UsageError
from models.backbones import FeatureSpec
from models.connected_decoder import ConnectedDecoder
from models.connectivity import Connectivity
from models.decoder_name import DecoderName
from models.decoders.base import DECODERS, Decoder


def check_decoder(name: str) -> None:
    """Raises UsageError for a decoder that is unknown, or whose file is no connectivity."""
    file = DecoderName.parse(name).file
    if file is None:
        DECODERS.get(name)
    else:
        Connectivity.load(file)


def decoder_class(name: str, revision: int | None = None) -> type[Decoder]:
    """The class of a decoder, whose ``info`` is known without building one.

    revision: of the network that a run was trained with; None: the newest. Raises UsageError for
    an unknown name or revision.
    """
    if DecoderName.parse(name).file is not None:
        return ConnectedDecoder
    newest = DECODERS.get(name)
    if revision in (None, newest.info.revision):
        return newest
    if revision not in newest.earlier:
        known = ", ".join(map(str, (*newest.earlier, newest.info.revision)))
        raise UsageError(
            f"decoder {name}: no revision {revision}, this version has {known}: use the version "
            "that wrote the run"
        )
    return newest.earlier[revision]


def has_width(decoder: type[Decoder]) -> bool:
    """Whether a decoder has a choice of ``width``."""
    return "width" in inspect.signature(decoder).parameters


def check_width(name: str, width: int | None) -> None:
    """Raises UsageError for ``--width`` of a decoder that has no choice, and for unknown names."""
    if width is not None and not has_width(decoder_class(name)):
        having = ", ".join(n for n in DECODERS.names() if has_width(DECODERS.get(n)))
        raise UsageError(
            f"--width {width}: decoder {name} has no width to choose: leave it out, or name "
            f"decoders that have one: connectivity:FILE.json, {having}"
        )


def create_decoder(
    name: str,
    features: Sequence[FeatureSpec | tuple[int, int]],
    *,
    width: int | None = None,
    wiring: Mapping[str, Any] | None = None,
    revision: int | None = None,
) -> Decoder:
    """A decoder for the feature maps of any encoder, with random weights.

    name: see ``list_decoders``, or ``connectivity:FILE.json``. features: (channels, stride) of each
    map, from the highest resolution to the lowest; the stride is in input pixels per map pixel.
    width: channels of the decoder's own maps, where it has a choice; others ignore it; None: its
    default. wiring: the file's strides and stages, if known; then the file is not read. revision:
    of the network that a run was trained with, as its configuration has it; None: the newest.

    The decoder takes a list of such maps, [B, C_i, H / stride_i, W / stride_i], and gives
    [B, ``out_channels``, h, w]; h and w are one of the maps', of a wired decoder the first one's.
    ``decoder.head(classes)`` makes the classifier behind it: [B, classes, h, w]. The decoders with
    deep supervision (hed, dss, encnet) give several tensors, which their own ``head`` reads. H and
    W must be multiples of ``decoder.info.size_divisor``.

    An encoder of segmentation-models-pytorch hands out the image itself as its first map, of
    stride 1: leave it out, here and in what the decoder gets::

        encoder = smp.encoders.get_encoder("resnet18", weights=None)
        features = [(channels, 2**i) for i, channels in enumerate(encoder.out_channels)]
        decoder = create_decoder("sparsemask", features[1:])
        maps = decoder(encoder(images)[1:])

    Raises UsageError for an unknown name, a file that is no connectivity, and features that are no
    such list or that the decoder cannot use.
    """
    specs = _specs(features)
    if width is not None and width < 1:
        raise UsageError(f"width={width}: expected at least one channel")
    decoder = decoder_class(name, revision)
    options = {"width": width} if width is not None and has_width(decoder) else {}
    wired = DecoderName.parse(name)
    if wired.file is None:
        return decoder(specs, **options)
    if wiring is None:
        source = Connectivity.load(wired.file)
    else:
        source = Connectivity.from_record(wired.label, wiring)
    return ConnectedDecoder(specs, source.onto(specs).wiring, **options)


def _specs(features: Sequence[FeatureSpec | tuple[int, int]]) -> tuple[FeatureSpec, ...]:
    """Raises UsageError that names a feature that is invalid or in the wrong place."""
    specs: list[FeatureSpec] = []
    for index, feature in enumerate(features):
        numbers: Any = feature
        if isinstance(feature, FeatureSpec):
            numbers = feature.channels, feature.stride
        if (
            not isinstance(numbers, Sequence)
            or len(numbers) != 2
            or not all(isinstance(number, int) and number >= 1 for number in numbers)
        ):
            raise UsageError(
                f"features[{index}]: {feature!r}: expected (channels, stride), whole numbers from 1"
            )
        specs.append(feature if isinstance(feature, FeatureSpec) else FeatureSpec(*numbers))
        if index and specs[-1].stride < specs[-2].stride:
            raise UsageError(
                f"features[{index}]: stride {specs[-1].stride} after {specs[-2].stride}: give the "
                "maps from the highest resolution to the lowest"
            )
    if not specs:
        raise UsageError("features: none: give (channels, stride) of each map")
    return tuple(specs)
