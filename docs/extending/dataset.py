"""A data set: photos in ``images/``, class maps of the same name in ``labels/``, lists of names."""

from pathlib import Path

from torch import Tensor

from datasets.base import DATASETS, DatasetInfo
from datasets.files import Line, inside, read_labels, read_list
from datasets.paired import Pair, PairedFiles

CLASSES = ("field", "road", "water")


@DATASETS.register("aerial")
class Aerial(PairedFiles):
    """``images/NAME.jpg``; ``labels/NAME.png`` of 0, 1, 2, or 255 = ignored; a NAME a line."""

    info = DatasetInfo(
        name="aerial",
        title="aerial photos",
        tasks={"segmentation": {"classes": CLASSES}},
        splits={"train": None, "test": None},  # or a published count, which is checked
        defaults={"image_size": (256, 256), "crop_size": (192, 192)},
        palette=((90, 160, 60), (128, 128, 128), (40, 90, 200)),
        licence="yours",
    )
    layout = "images/, labels/, train.txt and test.txt"
    target = "label map"

    def find(self, split: str) -> list[Pair]:
        """The files of ``split``, in the order of its list; missing ones are reported."""
        lines = read_list(self.root / f"{split}.txt", "write one name a line")
        return self.listed(lines, self._pair)

    def _pair(self, line: Line) -> Pair:
        image = inside(self.root, line, f"images/{line.text}.jpg")
        label = inside(self.root, line, f"labels/{line.text}.png")
        return Pair(image, label, line.text, line.where)

    def read_target(self, path: Path) -> Tensor:
        """uint8 [H, W]; other values raise DataError with the file's name."""
        return read_labels(path, range(len(CLASSES)))
