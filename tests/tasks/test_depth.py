import math

import numpy as np
import pytest
import torch

from datasets.base import DATASETS
from tasks.depth import Depth

IMAGE = torch.zeros(3, 1, 4, dtype=torch.uint8)


def written(task, metres):
    """The values of the file of a prediction, and its unit in metres."""
    picture = task.maps(IMAGE, torch.tensor([metres]))["depth"]
    return np.array(picture)[0].tolist(), float(picture.info["metres_per_unit"])


@pytest.mark.parametrize(
    ("farthest", "unit"),
    [(10.0, 0.001), (65.535, 0.001), (65.6, 1 / 256), (80.0, 1 / 256), (255.9, 1 / 256),
     (256.0, 0.01), (350.0, 0.01), (655.36, 0.1), (7000.0, 1.0), (1e6, 1.0)],
)  # fmt: skip
def test_the_unit_is_the_finest_that_reaches_the_range(farthest, unit):
    task = Depth(0.1, farthest)
    assert task.metres_per_unit == unit
    reached = min(farthest, 65_535 * unit)
    values, in_file = written(task, [0.5 * reached, reached, reached, reached])
    assert in_file == unit
    assert values[0] * unit == pytest.approx(0.5 * reached, abs=unit / 2 + 1e-4)
    assert values[1] * unit == pytest.approx(reached, abs=unit / 2 + 1e-4)


def test_no_data_set_goes_beyond_its_unit():
    for name in DATASETS.names():
        facts = DATASETS.get(name).info.tasks.get("depth")
        if facts:
            task = Depth(**facts)
            assert 65_535 * task.metres_per_unit >= task.max_depth


def test_what_does_not_fit_is_counted():
    task = Depth(1e-4, 10.0)
    metres = [70.0, 5e-5, 2.0, math.nan]  # views of other scales may leave the range
    values, _ = written(task, metres)
    assert values == [65_535, 1, 2000, 65_535]
    assert task.misfits(torch.tensor([metres])) == (
        "2 pixels beyond 65.535 m are written as it and 1 nearer than half a unit are written as "
        "0.001 m"
    )
    assert task.misfits(torch.tensor([[2.0, 65.535]])) == ""
    assert task.exact(torch.tensor([metres]))[0, :3].tolist() == pytest.approx(metres[:3])
