"""ONNX files: axis names, metadata, and running them with onnxruntime or OpenVINO on the CPU."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

AXES = {0: "batch", 2: "height", 3: "width"}
KEPT = 8
"""Compiled networks that an ``OpenVinoNetwork`` keeps."""


class OnnxNetwork(nn.Module):
    """A file run by onnxruntime on the CPU, with as many threads as torch uses now.

    Images [B, ``in_channels``, H, W] → outputs by name, as ``ExportableNetwork`` returns them.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised anyway
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.in_channels = int(self.session.get_inputs()[0].shape[1])

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self.session.run(self.outputs, {"images": images.contiguous().numpy()})
        return {
            name: torch.from_numpy(np.asarray(y))
            for name, y in zip(self.outputs, outputs, strict=True)
        }


class OpenVinoNetwork(nn.Module):
    """A file run by OpenVINO on the CPU, with as many threads as torch uses now.

    precision: "f32" or "bf16", of a float file. shape: of the images, [B, C, H, W], that it is
    compiled for; for those of another it is compiled then, and kept for ``KEPT`` shapes. Images →
    outputs by name, valid until the next call.
    """

    def __init__(self, path: Path, precision: str, shape: Sequence[int]) -> None:
        super().__init__()
        import openvino

        self.core = openvino.Core()
        self.model = self.core.read_model(str(path))
        self.settings = {
            "INFERENCE_PRECISION_HINT": precision,  # else it takes bf16 wherever it can
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        self.compiled: dict[tuple[int, ...], Any] = {}
        self.outputs = [output.get_any_name() for output in self._for(tuple(shape)).outputs]
        self.in_channels = int(shape[1])

    def _for(self, shape: tuple[int, ...]) -> Any:
        if shape not in self.compiled:
            if len(self.compiled) == KEPT:
                self.compiled.pop(next(iter(self.compiled)))
            self.model.reshape(list(shape))
            self.compiled[shape] = self.core.compile_model(self.model, "CPU", self.settings)
        return self.compiled[shape]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self._for(tuple(images.shape))(
            images.contiguous().numpy(), share_inputs=True, share_outputs=True
        ).values()
        return {name: torch.from_numpy(y) for name, y in zip(self.outputs, outputs, strict=True)}


def openvino_offers() -> list[str]:
    """What OpenVINO is fast at on this processor: FP32, BF16, INT8, …"""
    import openvino

    return list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def name_axes(model: Any) -> None:
    """Rename a ModelProto's dynamic axes from s34, s14, s54 to batch, height, width."""
    (images,) = model.graph.input
    names = {
        dim.dim_param: AXES[axis]
        for axis, dim in enumerate(images.type.tensor_type.shape.dim)
        if dim.dim_param
    }
    if not names:
        return
    symbol = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = symbol.sub(lambda m: names[m.group()], dim.dim_param)


def drop_places(model: Any) -> None:
    """Remove from a ModelProto the source files and lines of its nodes."""
    for graph in (model.graph, *model.functions):
        for value in (graph, *graph.node, *graph.value_info):
            del value.metadata_props[:]
            value.doc_string = ""


def set_metadata(model: Any, metadata: Mapping[str, str]) -> None:
    """Set texts of a ModelProto's ``metadata_props``; other names stay."""
    texts = {p.key: p.value for p in model.metadata_props} | dict(metadata)
    del model.metadata_props[:]
    for key, value in texts.items():
        model.metadata_props.add(key=key, value=value)


def drop_outputs(model: Any, ending: str) -> None:
    """Turn a ModelProto's outputs whose names end with ``ending`` into inner values."""
    others = [output for output in model.graph.output if not output.name.endswith(ending)]
    del model.graph.output[:]
    model.graph.output.extend(others)
