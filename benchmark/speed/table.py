"""Size and speed of pairs of backbone and decoder, without training and without data."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmark.experiment.network import check_device
from benchmark.speed.count import (
    NOT_COUNTED,
    MapsOnly,
    Size,
    _count,
)
from benchmark.speed.latency import PLAIN, Setup
from benchmark.speed.passes import (
    HEAD,
    SpeedRow,
    isolate_rows,
    pair,
    profile_rows,
    remember_memory,
    time_rows,
)
from common.errors import UsageError, UserError, first_line, reason
from common.extras import need
from common.progress import Listener, Silent
from models.backbones import check_name, create_backbone, create_without_weights
from models.create import check_decoder, create_decoder
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
    classes: int = 21,
    arguments: Mapping[str, Any] | None = None,
    timed: bool = True,
    device: str = "cpu",
    batches: Sequence[int] = (1,),
    min_time: float = 2.0,
    setup: Setup = PLAIN,
    *,
    memory: bool = False,
    processes: int = 0,
    profiled: bool = False,
    onnx: bool = False,
    listener: Listener | None = None,
) -> list[SpeedRow]:
    """A row for each backbone, decoder, image size (height, width) and batch, in this order.

    params: of backbone, decoder and a head of ``classes`` channels, and ``decoder_conv_weights`` as
    the paper counts them. macs: of one image. latency, where ``timed``: of a batch, all pairs of
    one size and batch in turns, run as ``setup`` says; its ``batch`` is smaller than the row's
    where memory was short. first_call_s: of the first call, compilation included.
    postprocessing_ms: of the argmax. With ``memory``, ``processes`` to repeat each time in, and
    ``profiled``, the rows have ``memory``, ``isolated`` and ``profile`` too; with ``onnx``, the
    latency of their ONNX files by onnxruntime, in turns with the others. A pair that cannot be
    has ``error``, the reason, and nulls; one that counts but does not run has ``error`` and no
    latency.

    Raises UsageError for unknown names, for a device that is not there, for a profile of compiled
    networks, for passes that run what is only to be counted, and for ONNX anywhere but on the CPU.
    """
    check_names(backbones, decoders)
    if not timed and (profiled or processes or onnx):
        option = "--profile" if profiled else "--isolate" if processes else "--onnx"
        raise UsageError(f"{option}: with --no-time nothing is run; leave one of them out")
    if profiled and setup.compiled:
        raise UsageError("--profile: a compiled network has no parts; leave out --compile")
    if onnx:
        if torch.device(device).type != "cpu" or setup.amp:
            raise UsageError("--onnx: runs on the CPU in float32: leave out --device and --amp")
        need("onnx", "onnxscript", "onnxruntime", extra="export", option="--onnx")
    if timed:
        check_device(device)
    arguments = arguments or {}
    listener = listener or Silent()
    rows: list[SpeedRow] = []
    models: dict[str, DensePredictor] = {}
    for name in backbones:
        backbone, fault = None, None
        try:
            backbone = (create_backbone if timed else create_without_weights)(name, arguments)
            maps = MapsOnly(backbone)
        except UserError as error:
            fault = first_line(error)
        for decoder, size in itertools.product(decoders, sizes):
            row: SpeedRow = {
                "backbone": name,
                "backbone_args": dict(arguments),
                "decoder": decoder,
                "image_size": list(size),
                "batch": batches[0],
                "classes": classes,
                "params": None,
                "macs": None,
                "macs_exclude": NOT_COUNTED,
                "error": fault,
            }
            if backbone is not None:
                try:
                    if pair(row) not in models:
                        with torch.device("cpu" if timed else "meta"):
                            built = create_decoder(decoder, backbone.features)
                            model = DensePredictor(backbone, built, {HEAD: classes})
                        models[pair(row)] = model
                    row.update(_count(models[pair(row)], maps, size, classes))
                except Exception as error:  # a pair that does not fit may raise anything
                    row["error"] = reason(error)
            rows += [{**row, "batch": batch} for batch in batches]
    if timed:
        ran = time_rows(rows, models, device, min_time, setup, listener, onnx)
        if processes:
            isolate_rows(rows, ran, arguments, device, min_time, processes, listener)
        if profiled:
            profile_rows(rows, ran, device, min_time, listener)
        if memory:
            remember_memory(rows, ran, arguments, device, listener)
    return rows
