"""Saliency measures against values that PySODMetrics gave (tests/oracles/freeze_saliency.py)."""

import json
from collections.abc import Iterable

import numpy as np
import pytest
import torch

from common.errors import UserError
from tasks.metrics.saliency import SaliencyMetrics, s_measure
from tests.oracles.freeze_saliency import (
    DAVIS,
    FROZEN,
    REAL,
    Pair,
    checksum,
    real_pairs,
    synthetic_pairs,
)

ORACLE = json.loads(FROZEN.read_text(encoding="utf-8"))


def scored(*pairs: tuple[object, object], **options: bool) -> SaliencyMetrics:
    metrics = SaliencyMetrics(**options)
    for prediction, target in pairs:
        metrics.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return metrics


def check(pairs: Iterable[Pair], frozen: dict) -> None:
    """Compare each pair by itself, and the pairs that the oracle could score all together."""
    names = []
    whole = SaliencyMetrics()
    for name, prediction, mask in pairs:
        names.append(name)
        expected = frozen["images"][name]
        assert checksum(prediction, mask) == expected["checksum"], f"{name}: not the frozen pair"
        known = {key: value for key, value in expected["values"].items() if value is not None}
        metrics = scored((prediction.copy(), mask.copy()))
        result = metrics.compute()
        assert {key: result[key] for key in known} == pytest.approx(known, abs=1e-6), name
        assert np.isfinite(list(result.values())).all(), name
        if known == expected["values"]:
            whole.merge(metrics)
    assert names == list(frozen["images"])
    assert whole.compute() == pytest.approx(frozen["split"], abs=1e-6)


def test_agrees_with_pysodmetrics_on_synthetic_pairs():
    check(synthetic_pairs(), ORACLE["synthetic"])


@pytest.mark.slow
@pytest.mark.skipif(not DAVIS.is_dir(), reason="needs ../shared/data/davis_foreground")
def test_agrees_with_pysodmetrics_on_real_masks():
    assert tuple(ORACLE["davis_foreground"]["images"]) == REAL
    check(real_pairs(), ORACLE["davis_foreground"])


def test_the_curve_is_averaged_before_the_maximum():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4] = True
    low, high = torch.zeros(8, 8), torch.full((8, 8), 0.6)
    low[:4] = 0.2
    low[7, 7] = high[0, 0] = 1.0
    high[4:] = 0.5
    high[7, 7] = 0.0
    each = [scored((prediction, mask)).compute()["maxf"] for prediction in (low, high)]
    both = scored((low, mask), (high, mask)).compute()["maxf"]
    assert both < sum(each) / 2 - 0.01


def test_mae_by_hand():
    # stretched from 0.2…0.6 to 0, 0.5, 1, 1 against 0, 1, 1, 0: errors 0, 0.5, 0, 1
    prediction = torch.tensor([[0.2, 0.4, 0.6, 0.6]], dtype=torch.float64)
    result = scored((prediction, torch.tensor([[0.0, 1.0, 1.0, 0.0]]))).compute()
    assert result["mae"] == pytest.approx(1.5 / 4)


def test_uniform_masks_have_defined_values():
    noise = torch.rand(20, 30, generator=torch.Generator().manual_seed(0))
    noise[0, :2] = torch.tensor([0.0, 1.0])
    empty, full = torch.zeros(20, 30, dtype=torch.bool), torch.ones(20, 30, dtype=torch.bool)
    mean = noise.double().mean().item()
    assert scored((noise, empty)).compute()["smeasure"] == pytest.approx(1 - mean)
    assert scored((noise, full)).compute()["smeasure"] == pytest.approx(mean)
    assert scored((noise, empty)).compute()["maxf"] == scored((noise, empty)).compute()["wf"] == 0
    counts = scored((noise, empty), (noise, full), (noise * 0, full)).counts()
    assert counts == {
        "images": 3,
        "empty_ground_truth": 1,
        "full_ground_truth": 2,
        "constant_prediction": 1,
    }


def test_the_two_departures_from_pysodmetrics_are_finite():
    # one row: the mask is the first two pixels of four, so the centroid, round(0.5) = 0, cuts after
    # the first pixel; the two lower quadrants are empty. Similarity of the first quadrant (1/4 of
    # the image, both 1): no variance, so 1. Of the other (0, 0, 0 against 1, 0, 0): 0.
    prediction, mask = np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([[True, True, False, False]])
    # object: inside 1, 0: mean 1/2, deviation √½: 1/(1/4 + 1 + 0.70711); outside 1, 1: 2/(1 + 1)
    objects = (1 / 1.957106781 + 1) / 2
    assert s_measure(prediction, mask) == pytest.approx((objects + 1 / 4) / 2)
    single = scored(([[1.0]], [[1.0]])).compute()
    assert single == pytest.approx(dict.fromkeys(single, 1.0) | {"mae": 0.0})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_an_encoding_of_the_mask_does_not_matter(dtype):
    grey = torch.arange(0, 256, dtype=torch.uint8).reshape(16, 16)
    target = grey if dtype == torch.uint8 else grey.to(dtype) / 255
    prediction = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    assert scored((prediction, target)).compute() == scored((prediction, grey > 128)).compute()


def test_predictions_of_any_real_type():
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[2:5, 3:7] = True
    exact = scored((mask, mask)).compute()
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert scored((mask.to(dtype), mask)).compute() == exact
    assert scored((mask.to(torch.uint8) * 255, mask)).compute() == exact
    # interpolation may leave 0…1 by a rounding error
    assert scored((mask.float() * 1.000001, mask)).compute() == exact


def test_wrong_maps_are_named():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    good = torch.rand(4, 4)
    for prediction, error, message in (
        (good * 8 - 4, ValueError, "outside 0…1: apply the sigmoid first"),
        (good * torch.nan, UserError, "NaN"),
        (mask.long(), ValueError, "got torch.int64"),
    ):
        with pytest.raises(error, match=message):
            scored((prediction, mask))
    for target in (mask.long(), mask.byte() + 1, good * 255, good * torch.nan):
        with pytest.raises(ValueError, match="expected bool, uint8 of 0 and 255, or real"):
            scored((good, target))


def test_memory_grows_by_scalars_unless_curves_are_kept():
    pairs = [(p, m) for _, p, m in synthetic_pairs()][:3]
    metrics, keeping = scored(*pairs), scored(*pairs, keep_curves=True)
    assert metrics.compute() == keeping.compute()
    assert set(metrics.compute()) - set(metrics.intervals()) == {"maxf", "maxe"}
    assert set(keeping.intervals()) == set(keeping.compute())
