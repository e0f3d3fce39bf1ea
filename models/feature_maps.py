"""A timm network as a list of feature maps, and how forwards on the meta device show which.

Nothing here depends on a weight's value.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UsageError, first_line
from models.neck import CHANNELS, NECKS, SimpleFeaturePyramid
from models.pyramid import STRIDES, Level, levels, resized

DEPTHS = 4
"""Blocks of a single-scale backbone whose outputs are used, if nothing else is asked for."""
GRIDS = (32, 64, 14, 28, 48, 12, 20, 36, 40, 56)
"""Multiples that sizes are tried with; all but the first two do not divide a map of stride 32."""


@dataclass(frozen=True)
class FeatureSpec:
    """One feature map: its channels and its declared stride (input pixels per map pixel).

    depth: of a single-scale backbone, the number of the block that it comes from, from 1; else 0.
    undilated: the stride that the map has without ``output_stride``, by which wirings are matched;
    left out, ``stride``. Two maps of one shape are equal whatever their depth and this.
    """

    channels: int
    stride: int
    depth: int = field(default=0, compare=False)
    undilated: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if not self.undilated:
            object.__setattr__(self, "undilated", self.stride)


def as_dilated(features: Sequence[FeatureSpec]) -> tuple[FeatureSpec, ...]:
    """``features`` whose wirings are matched by their own strides."""
    return tuple(replace(feature, undilated=feature.stride) for feature in features)


@dataclass(frozen=True)
class Geometry:
    """What ``Backbone`` needs to know of itself.

    grid: images are resized to multiples of it before the network sees them. chosen: indices of the
    blocks whose outputs are used, normed: by the network's last norm; levels: how they are resized;
    single: whether they had one stride. unread: modules that no used map depends on.
    """

    features: tuple[FeatureSpec, ...]
    size_divisor: int = 1
    fixed_size: tuple[int, int] | None = None
    grid: int = 1
    chosen: tuple[int, ...] = ()
    normed: bool = False
    levels: tuple[Level, ...] = ()
    single: bool = False
    unread: tuple[str, ...] = ()


class Backbone(nn.Module):
    """A timm network that returns feature maps.

    Input: normalised images [B, ``in_channels``, H, W]; ``size_divisor`` must divide H and W, and
    where ``fixed_size`` is set, (H, W) must equal it. Output: one map [B, C_i, h_i, w_i] for each
    of ``features``, from the highest resolution to the lowest; a map at the input's own resolution
    (VGG) only with ``full_resolution``. ``note``: a line about the weights that it was given from a
    file, "" without one.

    The network ``net`` has every stage of a MobileNet (``staged``), or a map of each stride, or
    ``blocks``, whose outputs are resized, or, of a single-scale one, go through its ``neck``.
    """

    def __init__(
        self,
        net: nn.Module,
        staged: bool = False,
        blocks: bool = False,
        in_channels: int = 3,
        full_resolution: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.staged, self.blocks = staged, blocks
        self.in_channels, self.full_resolution = in_channels, full_resolution
        self.channels_last_maps = not blocks and _is_channels_last(net)
        # a map at the input's own resolution costs most decoders more than it helps
        shown = staged or blocks or full_resolution
        self.skip = 0 if shown else sum(s < 2 for s in declared_strides(net))
        self.geometry = Geometry(())
        self.neck: SimpleFeaturePyramid | None = None
        self.note = ""
        self.register_load_state_dict_pre_hook(_without_unread)  # type: ignore[no-untyped-call]

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        return self.geometry.features

    @property
    def size_divisor(self) -> int:
        return self.geometry.size_divisor

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        return self.geometry.fixed_size

    @property
    def how(self) -> str:
        """ "stages", "strides", "short pyramid" or "single-scale": where the maps come from."""
        if not self.blocks:
            return "stages" if self.staged else "strides"
        return "single-scale" if self.geometry.single else "short pyramid"

    def forward(self, x: Tensor) -> list[Tensor]:
        known = self.geometry
        if not self.blocks:
            return self.raw(x)
        height, width = x.shape[-2:]
        if height % known.grid or width % known.grid:
            size = [-(-side // known.grid) * known.grid for side in (height, width)]
            # a map of all of the image, which padding would shift
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        maps = self.raw(x, known.chosen, known.normed)
        if self.neck is not None:
            return cast("list[Tensor]", self.neck(maps[-1], (height, width)))
        return [
            resized(maps[level.source], (-(-height // level.stride), -(-width // level.stride)))
            for level in known.levels
        ]

    def add_neck(self, name: str) -> None:
        """Put the neck ``name`` of ``NECKS`` behind the last block, the only one that is used."""
        (channels,) = {feature.channels for feature in self.features}
        (depth,) = {feature.depth for feature in self.features}
        self.neck = NECKS[name](channels)
        features = tuple(FeatureSpec(CHANNELS, stride, depth) for stride in STRIDES)
        self.geometry = replace(self.geometry, features=features)

    def raw(
        self, x: Tensor, chosen: Sequence[int] | None = None, normed: bool = False
    ) -> list[Tensor]:
        """The network's own maps, NCHW. chosen: indices of blocks; normed: by its last norm."""
        if self.staged:
            # with a head convolution the final map is one of its own, else the last block's
            own = hasattr(self.net, "bn2")
            out = self.net.forward_intermediates(x, extra_blocks=True, intermediates_only=not own)  # type: ignore[operator]
            return [*out[1], out[0]] if own else list(out)
        if self.blocks:
            options: dict[str, Any] = {"norm": True} if normed else {}
            if chosen is not None:
                options |= {"indices": list(chosen), "stop_early": True}
            return list(self.net.forward_intermediates(x, intermediates_only=True, **options))  # type: ignore[operator]
        maps = self.net(x)[self.skip :]
        return [m.permute(0, 3, 1, 2) for m in maps] if self.channels_last_maps else list(maps)


def _without_unread(backbone: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Leave out of ``state`` what no map is made from: runs of before hold it too."""
    assert isinstance(backbone, Backbone)
    for module in backbone.geometry.unread:
        for key in [key for key in state if key.startswith(f"{prefix}net.{module}.")]:
            del state[key]


def _is_channels_last(net: nn.Module) -> bool:
    output = getattr(net, "output_fmt", "NCHW")
    return bool(getattr(output, "value", output) == "NHWC")


Shape = tuple[int, ...]


class _Shapes:
    """Shapes of a forward's maps by the size of the image; None where it fails."""

    failure = ""

    def __init__(self, twin: Backbone, forward: Callable[[Tensor], list[Tensor]]) -> None:
        self.twin, self.forward = twin, forward
        self.known: dict[tuple[int, int], tuple[list[Shape] | None, str]] = {}

    def __call__(self, height: int, width: int) -> list[Shape] | None:
        size = height, width
        if size not in self.known:
            self.known[size] = self._look(height, width), self.failure
        maps, self.failure = self.known[size]
        return maps

    def _look(self, height: int, width: int) -> list[Shape] | None:
        images = torch.empty(1, self.twin.in_channels, height, width, device="meta")
        try:
            with torch.no_grad():
                found = [tuple(m.shape) for m in self.forward(images)]
        except Exception as error:  # what a network says to a wrong size is its own affair
            self.failure = first_line(error)
            if "meta tensor" in self.failure:
                self.failure = "its sizes depend on values, so that it cannot be counted unrun"
            return None
        if not found or any(len(shape) != 4 for shape in found):
            self.failure = f"its outputs {found} are no maps"
            return None
        return found


def measure(
    backbone: Backbone,
    name: str,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any],
    depths: int | None,
) -> Geometry:
    """The geometry of a backbone without one. config: timm's pretrained_cfg.

    depths: of a single-scale backbone, how many blocks are used. Raises UsageError for a backbone
    that runs at no size, and for depths that it does not have.
    """
    twin = copy.deepcopy(backbone).to("meta").eval()
    look = _of_blocks if backbone.blocks else _of_strides
    twin.geometry = found = look(twin, name, config, arguments, depths)
    return replace(found, unread=_unread(twin, found.fixed_size or (256, 256)))


def _of_strides(
    twin: Backbone,
    name: str,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any],
    depths: int | None,
) -> Geometry:
    if depths is not None:
        raise _no_depths(name, depths, "it has maps of several strides")
    shapes = _Shapes(twin, lambda x: twin.raw(x, None, False))
    size, unit = _size(shapes, _own(config, arguments), (32,), name, twin.in_channels)
    maps = shapes(*size)
    assert maps is not None
    # 97×131 and 65×95 leave different remainders at every stride
    odd = shapes(97, 131) is not None and shapes(65, 95) is not None
    strides: Sequence[int] = [round(size[0] / shape[2]) for shape in maps]
    if not twin.staged:
        strides = declared_strides(twin.net)[twin.skip :]
    features = tuple(
        FeatureSpec(shape[1], stride) for shape, stride in zip(maps, strides, strict=True)
    )
    fixed = (size[0], size[1]) if unit is None else None
    return Geometry(features, 1 if odd or fixed else 32, fixed)


def _of_blocks(
    twin: Backbone,
    name: str,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any],
    depths: int | None,
) -> Geometry:
    indices = arguments.get("out_indices")
    shapes = _Shapes(twin, lambda x: twin.raw(x, indices, False))
    patch = getattr(getattr(twin.net, "patch_embed", None), "patch_size", (1,))
    own_grids = [p for p in (patch if isinstance(patch, Sequence) else (patch,)) if p > 8]
    grids = (32, *own_grids, *GRIDS[1:])
    try:
        size, unit = _size(shapes, _own(config, arguments), grids, name, twin.in_channels)
    except UsageError:
        if indices is None:
            raise
        raise UsageError(
            f"backbone {name} does not take --backbone-arg out_indices={indices}: {shapes.failure}"
        ) from None
    maps = shapes(*size)
    assert maps is not None
    single = len({shape[2:] for shape in maps}) == 1
    if depths is not None and (not single or indices is not None):
        reason = "out_indices chooses them" if single else "it has maps of several strides"
        raise _no_depths(name, depths, reason)
    chosen = tuple(range(len(maps)))
    normed = False
    if single and indices is None:
        chosen = evenly(len(maps), depths or min(DEPTHS, len(maps)), name)
    elif indices is not None:
        every = _Shapes(twin, lambda x: twin.raw(x, None, False))(*size) or maps
        chosen = tuple(index % len(every) for index in indices)
    if single:
        # what the last norm has not scaled grows with depth; a neck behind it would be no map
        after = _Shapes(twin, lambda x: twin.raw(x, chosen, True))(*size)
        maps = _Shapes(twin, lambda x: twin.raw(x, chosen, False))(*size)
        normed = after is not None and after == maps
    assert maps is not None
    strides = [max(round(size[0] / shape[2]), 1) for shape in maps]
    made: tuple[Level, ...] = levels(strides)
    features = tuple(
        FeatureSpec(maps[i][1], stride, chosen[i] + 1 if single else 0)
        for i, stride in ((level.source, level.stride) for level in made)
    )
    if unit is None:
        return Geometry(features, 1, (size[0], size[1]), 1, chosen, normed, made, single)
    padded = unit if unit % 32 == 0 else 32
    grid = 1 if unit % 32 == 0 else unit
    return Geometry(features, padded, None, grid, chosen, normed, made, single)


def _no_depths(name: str, depths: int, reason: str) -> UsageError:
    return UsageError(f"backbone {name} takes no depths={depths}: {reason}")


def evenly(blocks: int, depths: int, name: str) -> tuple[int, ...]:
    """Indices of ``depths`` of ``blocks`` blocks, evenly spaced, the last one among them.

    Raises UsageError for more than there are, or none.
    """
    if not 1 <= depths <= blocks:
        raise UsageError(f"backbone {name} has {blocks} blocks: use depths from 1 to {blocks}")
    return tuple((i + 1) * blocks // depths - 1 for i in range(depths))


def declared_strides(net: nn.Module) -> list[int]:
    """Strides of all maps of a ``features_only`` model, as timm declares them."""
    strides: list[int] = net.feature_info.reduction()  # type: ignore[union-attr,operator]
    return strides


def _own(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> tuple[int, int]:
    """The size that the model was made for."""
    img_size = arguments.get("img_size")
    own = (img_size, img_size) if isinstance(img_size, int) else img_size
    height, width = own or tuple(config.get("input_size") or (3, 224, 224))[-2:]
    return height, width


def _size(
    shapes: _Shapes, own: tuple[int, int], units: Sequence[int], name: str, in_channels: int
) -> tuple[tuple[int, int], int | None]:
    """A size that runs, and the unit whose multiples all run; None where it is the only one.

    Raises UsageError if there is none.
    """
    for unit in units:
        side, short, long = (unit * max(round(s / unit), 2) for s in (256, 160, 224))
        if shapes(side, side) is not None and shapes(short, max(long, short + unit)) is not None:
            return (side, side), unit
    if shapes(*own) is None:
        on = "" if in_channels == 3 else f" on {in_channels} channels"
        tried = f"neither at 256×256 nor at {own[0]}×{own[1]}{on}"
        raise UsageError(f"backbone {name} runs {tried} ({shapes.failure})")
    return own, None


def _unread(twin: Backbone, size: tuple[int, int]) -> tuple[str, ...]:
    """The largest modules that are not called on the way to the maps, nor their weights used."""
    images = torch.empty(1, twin.in_channels, *size, device="meta")
    called: set[nn.Module] = set()
    hooks = [m.register_forward_pre_hook(lambda m, _: called.add(m)) for m in twin.modules()]
    try:
        sum((m.sum() for m in twin(images)), torch.zeros((), device="meta")).backward()
    except Exception:  # there may be no gradient of some operation: then everything stays
        return ()
    finally:
        for hook in hooks:
            hook.remove()

    def idle(module: nn.Module) -> bool:
        return not any(m in called for m in module.modules()) and not any(
            p.grad is not None for p in module.parameters()
        )

    found: list[str] = []
    for name, module in twin.net.named_modules():
        inside = any(name.startswith(f"{other}.") for other in found)
        if name and not inside and [*module.parameters()] and idle(module):
            found.append(name)
    if not found:
        return ()
    trimmed = copy.deepcopy(twin)
    remove(trimmed.net, found)
    try:
        with torch.no_grad():
            trimmed(images)
    except Exception:  # an attribute of theirs is read
        return ()
    return tuple(found)


def remove(net: nn.Module, names: Sequence[str]) -> None:
    """Replace modules by the identity, in place."""
    for name in names:
        parent, _, last = name.rpartition(".")
        setattr(net.get_submodule(parent), last, nn.Identity())
