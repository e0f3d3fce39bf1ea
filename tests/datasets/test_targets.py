"""What every kind of ground truth promises."""

import numpy as np
import pytest
import torch

from common.annotators import pack
from common.drawing import CALM_HATCH, HATCH
from common.errors import UsageError
from datasets.base import TARGETS, TargetKind

PALETTE = ((10, 20, 30), (40, 50, 60), (70, 80, 90))
H, W = 8, 12


@pytest.mark.parametrize("name", TARGETS.names())
class TestContract:
    @pytest.fixture
    def kind(self, name: str) -> TargetKind:
        return TARGETS.get(name)()

    @pytest.fixture
    def target(self, name: str, kind: TargetKind) -> torch.Tensor:
        """1 everywhere, as each kind writes it, but for two ignored rows."""
        ones = torch.ones(H, W).to(kind.dtype)
        target = pack(ones[None]) if name == "edges" else ones
        target[:2] = kind.ignore
        return target

    @pytest.mark.parametrize("palette", [PALETTE, ()])
    def test_ignored_pixels_are_hatched_and_no_other_looks_so(
        self, kind: TargetKind, target: torch.Tensor, palette: tuple[tuple[int, int, int], ...]
    ) -> None:
        picture = kind.draw(target, palette)
        assert picture.shape == (H, W, 3)
        hatch = {tuple(colour) for colour in picture[:2].reshape(-1, 3).tolist()}
        assert hatch in ({(grey,) * 3 for grey in greys} for greys in (HATCH, CALM_HATCH))
        assert not hatch & {tuple(colour) for colour in picture[2:].reshape(-1, 3).tolist()}
        everywhere = kind.draw(torch.full_like(target, kind.ignore), palette)
        assert np.array_equal(everywhere[:2], picture[:2])

    @pytest.mark.parametrize("size", [(4, 6), (16, 24), (4, 24), (H, W)])
    def test_resizing_keeps_type_and_ignored_pixels(
        self, kind: TargetKind, target: torch.Tensor, size: tuple[int, int]
    ) -> None:
        resized = kind.resize(target, size)
        assert resized.shape == size
        assert resized.dtype == kind.dtype
        rows = 2 * size[0] // H
        assert (resized[:rows] == kind.ignore).all()
        assert (resized[rows:] == target[-1, -1]).all()

    def test_a_zoom_leaves_ignored_pixels_ignored(
        self, kind: TargetKind, target: torch.Tensor
    ) -> None:
        moved = kind.zoomed(target[None], torch.full((1, 1, 1), 2.0))
        assert ((moved[0] == kind.ignore) == (target == kind.ignore)).all()


def test_an_unknown_target_says_where_the_kinds_are() -> None:
    with pytest.raises(UsageError, match="'flow': see the files of datasets/targets"):
        TARGETS.get("flow")
