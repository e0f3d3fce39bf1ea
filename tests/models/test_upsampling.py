"""Maps of several sizes in one sum: by matrices, by interpolation, compiled."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.upsampling import AVERAGE, ROWS, upsampled_sum

SIZES = {2: (33, 45), 4: (17, 23), 8: (9, 12), 16: (5, 6), 32: (3, 1), AVERAGE: (1, 1)}


def maps_of(strides: list[int], channels: int = 5, batch: int = 2) -> dict[int, Tensor]:
    random = torch.Generator().manual_seed(len(strides))
    return {
        s: torch.randn(batch, channels, *SIZES[s], generator=random, dtype=torch.float64)
        for s in strides
    }


def literal(maps: dict[int, Tensor], size: tuple[int, int]) -> Tensor:
    return sum(F.interpolate(x, size, mode="bilinear", align_corners=True) for x in maps.values())


@given(
    st.lists(st.sampled_from(list(SIZES)), min_size=1, unique=True),
    st.sampled_from([torch.contiguous_format, torch.channels_last]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_way_is_the_sum_of_interpolations(
    strides: list[int], layout: torch.memory_format, gradients: bool
) -> None:
    maps = {s: x.contiguous(memory_format=layout) for s, x in maps_of(strides).items()}
    expected = literal(maps, SIZES[2])
    with torch.set_grad_enabled(gradients):
        seen = upsampled_sum(maps, 2, SIZES[2])
    assert seen.shape == expected.shape
    torch.testing.assert_close(seen, expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_map_of_many_rows_is_interpolated() -> None:
    maps = {4: torch.randn(1, 3, ROWS + 5, 9), 8: torch.randn(1, 3, ROWS // 2, 5)}
    size = (2 * ROWS, 18)
    seen = upsampled_sum(dict(maps), 2, size)
    torch.testing.assert_close(seen, literal(maps, size), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("gap", [slice(0, 4), slice(2, 6)])
def test_a_slice_of_a_joint_convolution_leaves_the_rest_alone(gap: slice) -> None:
    joint = torch.randn(1, 8, 33, 45).contiguous(memory_format=torch.channels_last)
    before = joint.clone()
    small = torch.randn(1, 4, 5, 6)
    seen = upsampled_sum({2: joint[:, gap], 16: small}, 2, (33, 45))
    expected = literal({2: before[:, gap], 16: small}, (33, 45))
    torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)
    rest = [i for i in range(8) if not gap.start <= i < gap.stop]
    assert torch.equal(joint[:, rest], before[:, rest])


def test_half_precision_and_tracing_interpolate() -> None:
    maps = {s: x.bfloat16() for s, x in maps_of([2, 16]).items()}
    with torch.no_grad():
        seen = upsampled_sum(maps, 2, SIZES[2])
    assert seen.dtype == torch.bfloat16

    class Net(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return upsampled_sum({2: x, 16: y}, 2, x.shape[-2:])

    program = torch.export.export(Net(), tuple(maps_of([2, 16]).values()))
    kinds = {str(node.target) for node in program.graph.nodes}
    assert any("upsample_bilinear2d" in kind for kind in kinds)
    assert not any("bmm" in kind for kind in kinds)
