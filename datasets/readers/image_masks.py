"""The user's own ``images/`` and ``masks/`` with lists ``train.txt``, ``val.txt``, ``test.txt``."""

import os
from collections import defaultdict
from pathlib import Path, PurePosixPath

from common.errors import DataError
from datasets.base import DATASETS, DatasetInfo
from datasets.files import SUFFIXES, Line, inside, read_list
from datasets.paired import MaskPairs, Pair


@DATASETS.register("image-masks")
class ImageMasks(MaskPairs):
    """Salient objects: ``images/NAME.jpg`` (or another image format) with ``masks/NAME.png``.

    A list has one sample a line: ``NAME``, ``NAME.jpg`` or ``images/NAME.jpg``; NAME may contain
    folders. ``val.txt`` is optional. Masks are grey, above 128 = object.
    """

    info = DatasetInfo(
        name="image-masks",
        title="your own images and masks",
        tasks={"saliency": {}},
        splits={"train": None, "val": None, "test": None},
        licence="as your files",
        generic=True,
    )
    layout = "images/, masks/ and lists of names, train.txt and test.txt"

    @classmethod
    def available_splits(cls, root: Path | None) -> list[str]:
        """train and test, between them val where ``root`` has a ``val.txt``."""
        has_val = root is not None and (root / "val.txt").exists()
        return [split for split in cls.info.splits if has_val or split != "val"]

    def find(self, split: str) -> list[Pair]:
        remedy = (
            "write one name a line, such as 'sunset' for images/sunset.jpg and masks/sunset.png"
        )
        lines = read_list(self.root / f"{split}.txt", remedy)
        images = self._images()
        return self.listed(lines, lambda line: self._pair(line, images))

    def _images(self) -> dict[str, list[str]]:
        """Name without ending → image files of that name, all relative to ``images/``."""
        for folder in ("images", "masks"):
            if not (self.root / folder).is_dir():
                problem = f"has no folder {folder}/"
                raise DataError(
                    f"{self.root}: {problem}: put images/NAME.jpg and masks/NAME.png there"
                )
        names: dict[str, list[str]] = defaultdict(list)
        for folder, _, files in os.walk(self.root / "images", followlinks=True):
            inner = Path(folder).relative_to(self.root / "images")
            for file in sorted(files):
                if (path := inner / file).suffix.lower() in SUFFIXES:
                    names[path.with_suffix("").as_posix()].append(path.as_posix())
        return names

    def _pair(self, line: Line, images: dict[str, list[str]]) -> Pair:
        inside(self.root, line, line.text)
        entry = PurePosixPath(line.text)
        if entry.parts[:1] == ("images",):
            entry = entry.relative_to("images")
        files = images.get(str(entry), [])
        if entry.name and str(entry) in images.get(str(entry.with_suffix("")), ()):
            files = [str(entry)]
        if len(files) > 1:
            raise DataError(f"{line.where}: '{line.text}' is {' and '.join(files)}: write which")
        if not files:
            missing = self.root / "images" / entry
            raise DataError(f"{missing}: no image of that name: add it or remove {line.where}")
        name = PurePosixPath(files[0]).with_suffix("")
        mask = self.root / "masks" / f"{name}.png"
        return Pair(self.root / "images" / files[0], mask, str(name), line.where)
