"""The user's own folder of images and any targets, described by its ``dataset.yaml``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import ValidationError

from common.errors import DataError, UsageError
from common.validation import message_of
from common.words import count_of
from datasets.base import DATASETS, DatasetInfo, DenseDataset, Sample
from datasets.decoding import doubt_of_unit, orient, read_any_image, read_stored
from datasets.files import check_choice, check_file, check_root, fingerprint
from datasets.own import decode
from datasets.own.description import FILE, Depth, Description, Edges, Segmentation, Targets
from datasets.own.patterns import Matches, closer, fewest_wildcards
from datasets.own.reading import read_description
from datasets.own.splits import Names, by_hash, by_lists, check_group

if TYPE_CHECKING:
    from torch import Tensor

LAYOUT = f"a {FILE}, which python cli.py data init DIR writes"
READERS: Mapping[str, Callable[[Path, Any], Tensor]] = {
    "segmentation": decode.read_classes,
    "depth": decode.read_depth_map,
    "saliency": decode.read_object_mask,
}


class Files(NamedTuple):
    """The files of one sample. images: one, and those of further bands. where: what asks for it."""

    name: str
    images: tuple[Path, ...]
    targets: dict[str, tuple[Path, ...]]
    where: str


class Folder:
    """The files of a described folder, paired by name.

    images: sample name → image file. bands: files of each further pattern. targets: of each kind
    the files of each pattern, one for each annotator of edges, else one of all patterns.
    """

    def __init__(self, root: Path, description: Description, tasks: Sequence[str]) -> None:
        """Raises DataError where a pattern matches nothing or two files have one name.

        A file of ground truth or further bands whose pattern is closer than that of the images is
        no image.
        """
        self.description = description
        targets = description.targets.present
        groups: dict[str, Sequence[str]] = {"images": description.images}
        bands = description.bands.also if description.bands else ()
        groups |= {f"bands.also {pattern}": (pattern,) for pattern in bands}
        for task in tasks:
            files, key = targets[task].files, f"targets.{task}"
            several = {f"{key} {pattern}": (pattern,) for pattern in files}
            groups |= several if isinstance(targets[task], Edges) else {key: files}
        # of all targets, so that a sample has one name, and one split, whatever tasks are read
        patterns = [*description.images, *bands, *(f for t in targets.values() for f in t.files)]
        matches = Matches(root, groups, fewest_wildcards(patterns))
        others = [*bands, *(pattern for t in targets.values() for pattern in t.files)]
        self.images = {
            name: file
            for name, file in matches.groups["images"].items()
            if not closer(file, others, description.images)
        }
        self.bands = [matches.groups[f"bands.also {pattern}"] for pattern in bands]
        self.targets = {
            task: [
                files
                for key, files in matches.groups.items()
                if key.split(" ")[0] == f"targets.{task}"
            ]
            for task in tasks
        }

    def target_files(self, task: str, name: str) -> tuple[str, ...]:
        """The ground truth files of a sample, relative to the folder; none where it has none."""
        return tuple(files[name] for files in self.targets[task] if name in files)

    def unpaired(self, task: str) -> list[str]:
        """Ground truth files that belong to no image."""
        return [
            file
            for files in self.targets[task]
            for n, file in files.items()
            if n not in self.images
        ]


@DATASETS.register("own")
class OwnData(DenseDataset):
    """Any folder of images with labels, depth, masks or boundaries, as its ``dataset.yaml`` says.

    Images and their ground truth have one name, in folders or with endings of their own.
    """

    info = DatasetInfo(
        name="own",
        title=f"your own data, described by {FILE}",
        tasks={name: {} for name in Targets.model_fields},
        splits={"train": None, "val": None, "test": None},
        licence="as your files",
        generic=True,
    )
    described: ClassVar[bool] = True
    joint: ClassVar[bool] = True

    def __init__(
        self,
        root: Path | None,
        split: str,
        task: str,
        missing: list[DataError] | None = None,
        *,
        also: Sequence[str] = (),
    ) -> None:
        """Open ``split``: reads the lists and looks for every file, without opening any image.

        also: further tasks whose targets the samples hold too. missing: collects the errors of
        samples, which are left out; None: the first is raised. Raises UsageError for what is wrong
        in the description, DataError for what is wrong with files.
        """
        self.root = check_root(self.info, root, LAYOUT)
        self.content = read_description(self.root)
        self.info = facts_of(self.content)  # type: ignore[misc]
        self.tasks = tuple(dict.fromkeys((task, *also)))
        for name in self.tasks:
            check_choice(self.info, "task", name, self.info.tasks)
        check_choice(self.info, "split", split, self.info.splits)
        self.split, self.missing = split, missing
        self._colours: dict[int, tuple[int, int, int, str]] = {}
        folder = Folder(self.root, self.content, self.tasks)
        self.samples: list[Files] = []
        for chosen in self._chosen(folder):
            try:
                if isinstance(chosen, DataError):
                    raise chosen
                sample = self._files(folder, *chosen)
            except DataError as error:
                if missing is None:
                    raise
                missing.append(error)
                self.dropped += 1
                continue
            if sample.targets:
                self.samples.append(sample)
        if not self.samples and missing is None:
            problem = f"the {split} split has no sample"
            remedy = f"change splits in its {FILE}: lists, a larger share or another seed"
            raise DataError(f"{self.root}: {problem}: {remedy}")

    def remarks(self) -> list[str]:
        folder = Folder(self.root, self.content, self.tasks)
        parts = []
        for task in self.tasks:
            parts.append((f"of {task} without an image", folder.unpaired(task)))
            if self.content.targets.present[task].partial:
                files = folder.images.items()
                without = [file for name, file in files if not folder.target_files(task, name)]
                parts.append((f"of images without {task}", without))
        if group := self.content.splits.group:
            alone = [file for name, file in folder.images.items() if not re.search(group, name)]
            parts.append(("in whose name splits.group finds nothing, each a group", alone))
        if lists := self.content.splits.lists:
            names = Names(folder.images, [])
            entries = [
                entry for split in lists for entry in by_lists(self.root, lists, split, names)
            ]
            listed = {entry[0] for entry in entries if not isinstance(entry, DataError)}
            rest = [file for name, file in folder.images.items() if name not in listed]
            parts.append(("of images in none of the lists", rest))
        return [
            f"{count_of(len(files), 'file')} {what}, first {files[0]}"
            for what, files in parts
            if files
        ]

    def _chosen(self, folder: Folder) -> Any:
        """(name, where) of each sample of the split, or its error."""
        splits = self.content.splits
        if splits.lists:
            names = Names(folder.images, self._patterns(folder))
            return by_lists(self.root, splits.lists, self.split, names)
        if splits.group is not None:
            check_group(folder.images, splits.group, f"{self.root / FILE}: splits.group")
        chosen = by_hash(folder.images, splits)[self.split]
        return [(name, FILE) for name in chosen]

    def _patterns(self, folder: Folder) -> list[tuple[str, Mapping[str, str]]]:
        return [
            (pattern, files)
            for task in self.tasks
            for pattern in self.content.targets.present[task].files
            for files in folder.targets[task]
        ]

    def _files(self, folder: Folder, name: str, where: str) -> Files:
        """Raises DataError for a file that is missing or empty."""
        image = folder.images[name]
        images = [image]
        for pattern, files in zip(
            self.content.bands.also if self.content.bands else (), folder.bands, strict=True
        ):
            if name not in files:
                raise DataError(f"{self.root / image}: has no file {pattern} of its name: add it")
            images.append(files[name])
        targets: dict[str, tuple[Path, ...]] = {}
        for task in self.tasks:
            files_here = folder.target_files(task, name)
            if files_here:
                targets[task] = tuple(self.root / file for file in files_here)
            elif not self.content.targets.present[task].partial:
                patterns = ", ".join(self.content.targets.present[task].files)
                raise DataError(
                    f"{self.root / image}: no {task} of its name ({patterns}): add it, or write "
                    f"partial: true below targets.{task} in {self.root / FILE}"
                )
        sample = Files(name, tuple(self.root / file for file in images), targets, where)
        for path in sample.images:
            check_file(path, where, "image")
        for task, paths in targets.items():
            for path in paths:
                check_file(path, where, f"{task} file")
        return sample

    @classmethod
    def survey(
        cls, root: Path | None, split: str, task: str, **facts: Any
    ) -> tuple[DenseDataset, list[DataError]]:
        missing: list[DataError] = []
        return cls(root, split, task, missing, **facts), missing

    @classmethod
    def description(cls, root: Path | None) -> dict[str, Any] | None:
        read = read_description(check_root(cls.info, root, LAYOUT))
        return read.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def facts(cls, description: Mapping[str, Any] | None) -> DatasetInfo:
        """Raises UsageError where ``description`` is none of ``dataset.yaml``."""
        if description is None:
            raise UsageError(f"dataset own needs --data DIR, a folder with {LAYOUT}")
        try:
            return facts_of(Description.model_validate(description))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UsageError(
                f"the description of own data, {place}: {message_of(first)}: take the run's own "
                "files"
            ) from None

    @classmethod
    def available_splits(cls, root: Path | None) -> list[str]:
        return list(read_description(check_root(cls.info, root, LAYOUT)).splits.names)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """Raises DataError that names the damaged or wrong file."""
        files = self.samples[index]
        stored, orientation = self._image(files)
        targets = {task: self._target(task, paths) for task, paths in files.targets.items()}
        maps = [(files.targets[task][0], task, target) for task, target in targets.items()]
        image, doubt = orient(files.images[0], stored, orientation, maps, scaled=True)
        if doubt is not None:
            self.doubt("orientation", files.images[0], doubt)
        return Sample(image, targets, files.name)

    def _image(self, files: Files) -> tuple[Tensor, int]:
        """The image as it is stored, and its EXIF orientation; bands have none."""
        if self.content.bands is None:
            decode.check_rgb(files.images[0])
            return read_stored(files.images[0])
        return decode.read_bands(files.images, self.content.bands), 1

    def _target(self, task: str, paths: Sequence[Path]) -> Tensor:
        target = self.content.targets.present[task]
        if isinstance(target, Edges):
            return decode.read_marks(paths, target)
        if isinstance(target, Segmentation) and not target.palette:
            decode.check_palette(paths[0], self._colours)
        decoded = READERS[task](paths[0], target)
        if isinstance(target, Depth):
            per_metre = 1 / (target.metres_per_unit or 1)
            if (problem := doubt_of_unit(decoded, per_metre, target.range)) is not None:
                self.doubt("unit", paths[0], problem)
        return decoded

    def faults(self, index: int) -> list[DataError]:
        files, errors = self.samples[index], []
        reads: list[Callable[[], object]] = [lambda: self._image(files)]
        for task, paths in files.targets.items():
            reads.append(lambda task=task, paths=paths: self._target(task, paths))  # type: ignore[misc]
        for read in reads:
            try:
                read()
            except DataError as error:
                errors.append(error)
        return errors

    def fingerprint(self) -> str:
        return fingerprint(
            self.root,
            (
                path
                for files in self.samples
                for paths in (files.images, *files.targets.values())
                for path in paths
            ),
        )


def read_input(path: Path, description: Mapping[str, Any] | None) -> Tensor:
    """An image [C, H, W] in 0…255 for a network that was trained on such a data set.

    description: None for a data set that is not ``own``. Raises DataError for a file that cannot be
    read or has other bands, UsageError where the bands of an image lie in several files.
    """
    bands = None if description is None else Description.model_validate(description).bands
    remedy = "use images of these bands, or a network that was trained on such ones"
    if bands is None:
        decode.check_rgb(path, f"where the network takes RGB or grey: {remedy}")
        return read_any_image(path)
    if bands.also:
        names = ", ".join(bands.names)
        problem = f"the network takes the bands {names}, of several files"
        raise UsageError(f"{path}: {problem}: score such images with evaluate")
    return decode.read_bands([path], bands, f"that the network takes: {remedy}")


def facts_of(description: Description) -> DatasetInfo:
    """The facts of a described data set, as a reader declares them."""
    targets = description.targets.present
    labels = description.targets.segmentation
    defaults: dict[str, Any] = {}
    if description.image_size is not None:
        defaults["image_size"] = description.image_size
    if description.bands is not None and description.bands.mean:
        defaults |= {"mean": description.bands.mean, "std": description.bands.std}
    splits = description.splits.names
    names = description.bands.names if description.bands else ()
    return DatasetInfo(
        name="own",
        title=description.name,
        tasks={name: target.facts() for name, target in targets.items()},
        splits=dict.fromkeys(splits),
        scored="test" if "test" in splits else "val",
        defaults=defaults,
        palette=labels.palette if labels else (),
        licence=description.licence or "as your files",
        citation=description.citation,
        generic=True,
        channels=len(names) or 3,
        channel_names=names,
    )
