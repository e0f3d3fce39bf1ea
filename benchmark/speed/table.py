"""Size and speed of pairs of backbone and decoder, without training and without data."""

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence

import torch

from benchmark.results.runtimes import pair_of
from benchmark.speed.count import NOT_COUNTED, MapsOnly, Size, counted
from benchmark.speed.passes import isolated, memories, profiles, timings
from benchmark.speed.rows import HEAD, SpeedOptions, SpeedRow, identity
from common.errors import UserError, reason
from common.progress import Listener, Silent
from models.backbone_facts import for_size
from models.backbones import Backbone, check_name, create_backbone, create_without_weights
from models.create import check_decoder, check_width, create_decoder, decoder_class
from models.predictor import DensePredictor


def check_names(backbones: Sequence[str], decoders: Sequence[str]) -> None:
    """Raises UsageError for an unknown backbone or decoder and for a file that is no wiring."""
    for name in backbones:
        check_name(name)
    for name in decoders:
        check_decoder(name)


def speed_rows(
    backbones: Sequence[str],
    decoders: Sequence[str],
    sizes: Sequence[Size],
    options: SpeedOptions | None = None,
    listener: Listener | None = None,
) -> list[SpeedRow]:
    """A row for each backbone, decoder, image size (height, width), batch, runtime and precision.

    All pairs of one size and batch take turns. A pair that cannot be built has nulls and the reason
    in ``error``; one that cannot run has its counts, ``error`` and no latency.

    Raises UsageError for unknown names, a width of a decoder without a choice, a missing device, a
    profile of compiled networks, a pass that runs networks without ``timed``, and ONNX anywhere but
    on the CPU in float32.
    """
    options, listener = options or SpeedOptions(), listener or Silent()
    check_names(backbones, decoders)
    for name in decoders:
        check_width(name, options.width)
    options.check()
    models: dict[str, DensePredictor] = {}
    rows = [
        row
        for backbone in backbones
        for row in _counted_rows(backbone, itertools.product(decoders, sizes), options, models)
    ]
    if not options.timed:
        return rows
    parts, ran = timings(rows, models, options, listener)
    rows = _joined(rows, parts)
    for chosen, measured in (
        (options.processes, isolated),
        (options.profiled, profiles),
        (options.memory and options.pairs is None, memories),
    ):
        if chosen:
            rows = _joined(rows, measured(rows, ran, options, listener))
    return rows


def _joined(rows: Sequence[SpeedRow], parts: Sequence[SpeedRow]) -> list[SpeedRow]:
    return [row | part for row, part in zip(rows, parts, strict=True)]


def _counted_rows(
    name: str,
    choices: Iterable[tuple[str, Size]],
    options: SpeedOptions,
    models: dict[str, DensePredictor],
) -> Iterator[SpeedRow]:
    """Rows of a backbone with their counts; adds its networks to ``models``.

    choices: decoders and image sizes.
    """
    create = create_backbone if options.timed else create_without_weights

    @functools.cache
    def opened(arguments: str, full_resolution: bool) -> tuple[Backbone, MapsOnly] | UserError:
        try:
            backbone = create(
                name, json.loads(arguments), in_channels=options.in_channels,
                full_resolution=full_resolution,
            )  # fmt: skip
        except UserError as fault:
            return fault
        return backbone, MapsOnly(backbone)

    def parts(row: SpeedRow, size: Size) -> tuple[Backbone, MapsOnly]:
        row["backbone_args"] = for_size(name, options.arguments, size, options.in_channels)
        arguments = json.dumps(row["backbone_args"])
        found = opened(arguments, full_resolution=False)
        full = decoder_class(row["decoder"]).info.full_resolution
        if not isinstance(found, UserError) and found[0].skip > 0 and full:
            found = opened(arguments, full_resolution=True)
        if isinstance(found, UserError):
            raise found
        return found

    for decoder, size in choices:
        row: SpeedRow = {
            "backbone": name,
            "backbone_args": dict(options.arguments),
            "decoder": decoder,
            "image_size": list(size),
            "batch": options.batches[0],
            "classes": options.classes,
            "in_channels": options.in_channels,
            "params": None,
            "macs": None,
            "macs_exclude": NOT_COUNTED,
            "error": None,
        }
        if options.width is not None:
            row["width"] = options.width
        try:
            backbone, maps = parts(row, size)
            if identity(row) not in models:
                with torch.device("cpu" if options.timed else "meta"):
                    built = create_decoder(decoder, backbone.features, width=options.width)
                    model = DensePredictor(backbone, built, {HEAD: options.classes})
                models[identity(row)] = model
            row |= counted(models[identity(row)], maps, size, options.classes)
        except Exception as fault:  # a decoder may raise anything for maps that do not fit it
            row["error"] = reason(fault)
        pairs = options.pairs or [
            pair_of(options.device, options.setup.amp, options.setup.compiled)
        ]
        for batch, (runtime, precision) in itertools.product(options.batches, pairs):
            named: SpeedRow = {"runtime": runtime, "precision": precision}
            yield row | {"batch": batch} | (named if options.timed else {})
