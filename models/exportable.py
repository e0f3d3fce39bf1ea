"""Layers for all input sizes, in place of layers that exporters fix to one size."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn


class Pooling(nn.Module):
    """Adaptive average pooling into ``bins`` as two matrix products, for any size of a map.

    Exporters fix the bounds of ``nn.AdaptiveAvgPool2d`` to the size of the example. bins: (rows,
    columns).
    """

    def __init__(self, bins: Any) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_bins(x, axis, n) for axis, n in zip((2, 3), self.bins, strict=True))
        return rows @ x @ columns.mT


def _bins(x: Tensor, axis: int, bins: int) -> Tensor:
    """[bins, size]: the weight of every row (or column) of ``x`` in every bin."""
    size = x.shape[axis]
    places = torch.arange(size, device=x.device)[None]
    index = torch.arange(bins, device=x.device)[:, None]
    first, end = index * size // bins, ((index + 1) * size + bins - 1) // bins
    inside = ((places >= first) & (places < end)).to(x.dtype)
    return inside / inside.sum(1, keepdim=True)


class SameConv(nn.Module):
    """A convolution with TensorFlow's padding, computed in whole numbers.

    timm's rounds a quotient and compares, twice for each layer; over a network this builds
    expressions that take torch.export minutes. It does not serve kernels smaller than their stride,
    which may need no padding.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        conv, pads = self.conv, []
        for axis in (1, 0):
            side, stride = x.shape[2 + axis], conv.stride[axis]
            reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
            total = reach - 1 if stride == 1 else (side - 1) // stride * stride + reach - side
            pads += [total // 2, total - total // 2]
        x = F.pad(x, pads)
        return F.conv2d(x, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def make_exportable(net: nn.Module) -> None:
    """Replace, in place, the layers of ``net`` that have a substitute here."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size = child.output_size
                bins = (size, size) if isinstance(size, int) else size
                if bins != (1, 1):
                    setattr(parent, name, Pooling(bins))
            elif isinstance(child, Conv2dSame) and all(
                k >= s for k, s in zip(child.kernel_size, child.stride, strict=True)
            ):
                setattr(parent, name, SameConv(child))
