"""Parameters and multiply-accumulates of a network and its parts."""

import copy
import functools

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.speed.rows import HEAD, SpeedRow
from models.backbones import Backbone
from models.fusion import reparameterised
from models.predictor import DensePredictor, channels_of

PARTS = ("backbone", "decoder", "head")


NOT_COUNTED = "interpolation, normalisation and element-wise operations"


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters of backbone, decoder and head(s), and of a neck where there is one."""
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        inside = name.startswith("backbone.neck.")
        part = "neck" if inside else name.split(".")[0].removesuffix("s")
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def count_decoder_conv_weights(model: DensePredictor) -> int:
    """Weights of the decoder as SparseMask's tables count them, without BatchNorm and biases.

    Counts convolutions and linear layers (which are 1×1 convolutions), and those of the heads too
    where the decoder's ``counts_classifier`` is set.
    """
    parts: list[nn.Module] = [model.decoder]
    if model.decoder.info.counts_classifier:
        parts.append(model.heads)
    layers = (layer for part in parts for layer in part.modules())
    return sum(
        layer.weight.numel()
        for layer in layers
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    )


def count_deployed(model: DensePredictor, size: tuple[int, int]) -> dict[str, int]:
    """``params`` and ``macs`` of the whole network with its backbone re-parameterised.

    Empty where that changes neither: what is timed and exported is what the other counts say.
    """
    light = MapsOnly(model.backbone)
    return {} if light.deployed == light.params else deployed_costs(model, light, size)


def deployed_costs(
    model: DensePredictor, light: "MapsOnly", size: tuple[int, int]
) -> dict[str, int]:
    """``params`` and ``macs`` of the whole network as it is deployed. light: of its backbone."""
    height, width = (-(-side // model.size_divisor) * model.size_divisor for side in size)
    params = sum(count_parameters(model).values()) - light.params + light.deployed
    maps = DensePredictor(light, model.decoder, {})  # type: ignore[arg-type]
    maps.heads = model.heads
    light.count(height, width)  # first, or the counter of the rest would see it
    rest = sum(count_macs(maps, size).values())
    return {"params": params, "macs": rest + sum(light.count(height, width, True)[1:])}


def count_macs(model: nn.Module, size: tuple[int, int]) -> dict[str, int]:
    """Multiply-accumulates of convolutions and matrix products for one image of ``size``.

    torch's FlopCounterMode counts them on the meta device, as two operations each.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        twin(torch.empty(1, channels_of(model), *size, device="meta"))
    counts = dict.fromkeys(PARTS, 0)
    for name, operations in counter.get_flop_counts().items():
        part, *rest = name.split(".")[1:] or [""]
        # the container of heads is never called, so its members are counted
        if part in counts and not rest:
            counts[part] += sum(operations.values()) // 2
        elif part == "heads" and len(rest) == 1:
            counts["head"] += sum(operations.values()) // 2
        elif (part, rest) == ("backbone", ["neck"]):
            counts["neck"] = sum(operations.values()) // 2
    counts["backbone"] -= counts.get("neck", 0)
    return counts


Size = tuple[int, int]


class MapsOnly(nn.Module):
    """Stand-in for a backbone on the meta device: maps of the same shapes, without its work.

    A backbone takes far longer to count than a decoder, and all its decoders read the same maps.
    params, deployed: of the backbone without its neck, before and after re-parameterisation.
    ``count(height, width, deployed)``: its maps, its MACs and those of its neck, 0 without one.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.features, self.in_channels = backbone.features, backbone.in_channels
        self.size_divisor, self.fixed_size = backbone.size_divisor, backbone.fixed_size
        twin = copy.deepcopy(backbone).to("meta").eval()
        other = copy.deepcopy(twin)
        other.net = reparameterised(twin.net)
        self.params, self.deployed = (
            sum(p.numel() for p in one.net.parameters()) for one in (twin, other)
        )

        @functools.cache
        def count(height: int, width: int, deployed: bool = False) -> tuple[list[Tensor], int, int]:
            net = other if deployed else twin
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                maps = net(torch.empty(1, self.in_channels, height, width, device="meta"))
            neck = sum(counter.get_flop_counts().get("Backbone.neck", {}).values())
            return maps, (counter.get_total_flops() - neck) // 2, neck // 2

        self.count = count

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.count(*x.shape[-2:])[0]


def counted(model: DensePredictor, maps: MapsOnly, size: Size, classes: int) -> SpeedRow:
    """``params``, ``macs``, ``deployed`` and, with a neck, ``neck`` of a row.

    Raises UsageError for a size that the network refuses.
    """
    model.check_size(*size)
    light = DensePredictor(maps, model.decoder, {HEAD: classes})  # type: ignore[arg-type]
    height, width = (-(-s // model.size_divisor) * model.size_divisor for s in size)
    _, backbone, neck = maps.count(height, width)  # first, or the decoder's counter would see it
    params = count_parameters(model)
    macs = {**count_macs(light, size), "backbone": backbone}
    row: SpeedRow = {
        "params": {
            "backbone": params["backbone"],
            "decoder": params["decoder"],
            "decoder_conv_weights": count_decoder_conv_weights(model),
            "head": params["head"],
        },
        "macs": macs,
        "deployed": {},
    }
    if maps.deployed != maps.params:
        row["deployed"] = {"params": maps.deployed, "macs": maps.count(height, width, True)[1]}
    if "neck" in params:
        row["params"] = params | (row["params"] or {})
        row["macs"] = macs | {"neck": neck}
        row["neck"] = {"params": params["neck"], "macs": neck, "ms": None}
    return row
