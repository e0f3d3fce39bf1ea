"""What is particular to the published folders of MSRA-B and PASCAL-S, and to salient masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from datasets.paired import PairedFiles
from datasets.readers.saliency_sets import Duts, MsraB, PascalS
from tests.datasets.fixtures_depth_saliency import FIXTURES, write_image, write_mask

pytestmark = pytest.mark.filterwarnings("ignore:.*samples in '.*' where")


def load(kind: type[PairedFiles], root: Path, split: str = "test") -> PairedFiles:
    if not root.exists():
        FIXTURES[kind.info.name](root)
    return kind(root, split, "saliency")


def failure(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(MsraB, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", [MsraB, Duts, PascalS])
def test_above_128_is_object(tmp_path: Path, kind: type[PairedFiles]) -> None:
    data = load(kind, tmp_path / "data")
    for pair, sample in zip(data.pairs, data, strict=True):
        grey = np.array(Image.open(pair.target))
        assert np.array_equal(sample.targets["saliency"].numpy(), grey > 128)


def test_msra_b_beside_its_lists(tmp_path: Path) -> None:
    root = tmp_path / "msra-b"
    expected = [pair.name for pair in load(MsraB, root, "train").pairs]
    for folder in ("image", "annotation"):
        for path in (root / folder).iterdir():
            path.rename(root / path.name)
        (root / folder).rmdir()
    (root / "train_cvpr2013.txt").rename(root / "train.txt")
    assert [sample.name for sample in load(MsraB, root, "train")] == expected
    (root / "train.txt").write_text(f"{expected[1]}\n{expected[0]}.jpg\n", encoding="utf-8")
    assert [sample.name for sample in load(MsraB, root, "train")] == expected[::-1]
    write_image(root / "ein straße 日本.jpg")
    write_mask(root / "ein straße 日本.png")
    (root / "train.txt").write_text("ein straße 日本.png\n", encoding="utf-8")
    assert load(MsraB, root, "train")[0].name == "ein straße 日本"


def test_pascal_s_takes_what_more_than_half_chose(tmp_path: Path) -> None:
    data = load(PascalS, tmp_path / "pascal-s")
    chosen = [bool(sample.targets["saliency"].any()) for sample in data]
    assert chosen == [True, True, False]  # twelve, eight and four viewers of twelve
