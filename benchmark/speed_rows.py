"""Size and speed of pairs of backbone and decoder, without training and without data."""

import copy
import functools
import itertools
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.network import check_device
from benchmark.speed import (
    NOT_COUNTED,
    PLAIN,
    Setup,
    count_decoder_conv_weights,
    count_macs,
    count_parameters,
    first_call,
    speed_record,
    time_models,
)
from common.errors import UserError, first_line
from models.backbones import Backbone, check_name, create_backbone, create_without_weights
from models.connectivity import Connectivity
from models.decoders.base import DECODERS
from models.predictor import DensePredictor, build_decoder, wiring_file

HEAD = "classes"
Size = tuple[int, int]
Row = dict[str, Any]


class MapsOnly(nn.Module):
    """Stands in for a backbone on the meta device: the shapes of its maps without its work.

    A backbone takes far longer to count than a decoder, and all its decoders see the same maps.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.features = backbone.features
        self.size_divisor, self.fixed_size = backbone.size_divisor, backbone.fixed_size
        twin = copy.deepcopy(backbone).to("meta").eval()

        @functools.cache
        def count(height: int, width: int) -> tuple[list[Tensor], int]:
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                maps = twin(torch.empty(1, 3, height, width, device="meta"))
            return maps, counter.get_total_flops() // 2

        self.count = count

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.count(*x.shape[-2:])[0]


def _count(model: DensePredictor, maps: MapsOnly, size: Size, classes: int) -> Row:
    """``params`` and ``macs`` of a row. Raises UsageError for a size that cannot be."""
    model.check_size(*size)
    light = DensePredictor(maps, model.decoder, {HEAD: classes})  # type: ignore[arg-type]
    height, width = (-(-s // model.size_divisor) * model.size_divisor for s in size)
    backbone = maps.count(height, width)[1]  # first, or the decoder's counter would see it
    params = count_parameters(model)
    return {
        "params": {
            "backbone": params["backbone"],
            "decoder": params["decoder"],
            "decoder_conv_weights": count_decoder_conv_weights(model),
            "head": params["head"],
        },
        "macs": {**count_macs(light, size), "backbone": backbone},
    }


def check_names(backbones: Sequence[str], decoders: Sequence[str]) -> None:
    """Raises UsageError for an unknown backbone or decoder and for a file that is no wiring."""
    for name in backbones:
        check_name(name)
    for name in decoders:
        file = wiring_file(name)
        if file is None:
            DECODERS.get(name)
        else:
            Connectivity.load(file)


def speed_rows(
    backbones: Sequence[str],
    decoders: Sequence[str],
    sizes: Sequence[Size],
    classes: int = 21,
    arguments: Mapping[str, Any] | None = None,
    timed: bool = True,
    device: str = "cpu",
    batches: Sequence[int] = (1,),
    min_time: float = 2.0,
    setup: Setup = PLAIN,
) -> list[Row]:
    """A row for each backbone, decoder, image size (height, width) and batch, in this order.

    params: of backbone, decoder and a head of ``classes`` channels, and ``decoder_conv_weights`` as
    the paper counts them. macs: of one image. latency, where ``timed``: of a batch, all pairs of
    one size and batch in turns, run as ``setup`` says. first_call_s: of the first call, compilation
    included. A pair that cannot be has ``error``, the reason, and nulls; one that counts
    but does not run (memory) has ``error`` and no latency.

    Raises UsageError for unknown names and for a device that is not there.
    """
    check_names(backbones, decoders)
    if timed:
        check_device(device)
    rows: list[Row] = []
    models: dict[int, DensePredictor] = {}
    for name in backbones:
        backbone, reason = None, None
        try:
            backbone = (create_backbone if timed else create_without_weights)(name, arguments)
            maps = MapsOnly(backbone)
        except UserError as error:
            reason = first_line(error)
        for decoder, size, batch in itertools.product(decoders, sizes, batches):
            row: Row = {
                "backbone": name,
                "decoder": decoder,
                "image_size": list(size),
                "batch": batch,
                "classes": classes,
                "params": None,
                "macs": None,
                "macs_exclude": NOT_COUNTED,
                "error": reason,
            }
            rows.append(row)
            if backbone is None:
                continue
            try:
                with torch.device("cpu" if timed else "meta"):
                    built = build_decoder(decoder, backbone)
                    model = DensePredictor(backbone, built, {HEAD: classes})
                row.update(_count(model, maps, size, classes))
                if timed:
                    models[len(rows) - 1] = model
            except UserError as error:
                row["error"] = first_line(error)
            except Exception as error:  # a pair that does not fit may raise anything
                row["error"] = f"{type(error).__name__}: {first_line(error)}"
    if timed:
        _time(rows, models, device, min_time, setup)
    return rows


def _time(
    rows: list[Row],
    models: Mapping[int, DensePredictor],
    device: str,
    min_time: float,
    setup: Setup,
) -> None:
    """Give every row its ``latency``: the speed record, null where there is none."""
    for row in rows:
        row["latency"] = row["first_call_s"] = None
    for size, batch in {(tuple(row["image_size"]), row["batch"]): None for row in rows}:
        group: dict[str, nn.Module] = {}
        setups: dict[str, Setup] = {}
        for index, model in models.items():
            row = rows[index]
            if (row["image_size"], row["batch"]) != (list(size), batch):
                continue
            try:  # alone first: what does not fit into memory must not take the others along
                ready, setups[str(index)] = setup.prepared(model)
                row["first_call_s"] = first_call(ready, size, device, batch, setup)
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {first_line(error)}"
            else:
                group[str(index)] = ready
        session = uuid.uuid4().hex[:8]
        timings = time_models(group, size, device, batch, setup, min_time=min_time)
        for key, latency in timings.items():
            others = sorted({_pair(rows[int(i)]) for i in group if i != key})
            rows[int(key)]["latency"] = speed_record(
                latency, size, device, setups[key], others, session, batch
            )


def _pair(row: Row) -> str:
    return f"{row['backbone']} + {row['decoder']}"
