"""The data that runs share, as they are opened."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.experiment.config import make_config
from benchmark.experiment.plan import make_tasks, resolve
from benchmark.run.data import Data
from common.progress import Silent

pytestmark = pytest.mark.filterwarnings("ignore:.* samples in '.*' where ")
WORDS = "segmentation: pixels of only 4 of 11 classes: this is not the published set: .* own"


@pytest.mark.parametrize("limit", [None, 2])
def test_a_folder_with_other_classes_is_a_warning(
    camvid: Path, recwarn: pytest.WarningsRecorder, limit: int | None
) -> None:
    for path in (camvid / "trainannot").iterdir():
        Image.fromarray(np.resize(np.arange(4, dtype=np.uint8), (48, 64))).save(path)
    values = {"task": "segmentation", "dataset": "camvid", "data": camvid, "limit": limit}
    config = resolve(make_config({**values, "image_size": (48, 64)}))
    if limit is not None:  # of which nobody expects all classes
        Data.open(config, make_tasks(config), Silent())
        assert not any("classes" in str(warning.message) for warning in recwarn)
        return
    with pytest.warns(UserWarning, match=WORDS):
        Data.open(config, make_tasks(config), Silent())
