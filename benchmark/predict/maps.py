"""Maps of a user's own images by a trained network: values and pictures, as image files."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from benchmark.experiment.plan import info_of
from benchmark.results.checkpoint import Checkpoint
from benchmark.scoring.views import Views, predict
from common.drawing import Picture, photograph
from common.errors import DataError, UsageError
from common.files import write_atomic
from common.progress import Listener
from datasets.base import Sample
from datasets.files import SUFFIXES
from datasets.own.decode import ARRAYS
from datasets.own.reader import read_input
from datasets.pipeline import fitted


def find_images(paths: Sequence[Path]) -> dict[str, Path]:
    """Image files by the name of their maps; a folder stands for the images directly in it.

    The name is the file's without its suffix, or with it where two files share it. Raises
    UsageError for a missing path, for no image, and for two files of the same full name.
    """
    images: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(
                p
                for p in path.iterdir()
                if p.suffix.lower() in (*SUFFIXES, *ARRAYS) and not p.name.startswith(".")
            )
            images |= dict.fromkeys(inside)
        elif path.is_file():
            images[path] = None
        else:
            raise UsageError(f"{path}: no such image or folder")
    if not images:
        raise UsageError(f"{', '.join(map(str, paths))}: no image in it ({', '.join(SUFFIXES)})")
    stems = Counter(path.stem for path in images)
    by_name: dict[str, Path] = {}
    for path in images:
        name = path.stem if stems[path.stem] == 1 else path.name
        if name in by_name:
            raise UsageError(
                f"{by_name[name]} and {path} would be written as one: predict them into two "
                "folders (-o)"
            )
        by_name[name] = path
    return by_name


class Mapper:
    """Draws the maps of an image by a checkpoint's network on a device.

    Images are resized to the run's size; with ``original`` they keep their own. The maps always
    have the image's own size. exact: values as float32 where a PNG would round them.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        views: Views,
        original: bool,
        device: str,
        exact: bool = False,
    ) -> None:
        self.config, self.tasks, self.views = checkpoint.config, checkpoint.tasks, views
        self.original, self.device, self.exact = original, torch.device(device), exact
        self.model = checkpoint.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.channels = checkpoint.config.channels
        self.info = info_of(self.config)

    def read(self, path: Path) -> Tensor:
        """The image [C, H, W] of a file. Raises DataError where it has other channels."""
        image = read_input(path, self.config.description)
        if image.shape[0] != self.channels:
            bands = f"{self.channels} band{'s' if self.channels != 1 else ''}"
            problem = f"the network takes {bands}, the image has {image.shape[0]}"
            raise DataError(f"{path}: {problem}: use one that was trained on such images")
        return image

    def pictures(self, image: Tensor) -> dict[str, Picture]:
        """Pictures of every task's map of an image [C, H, W], by file suffix."""
        return self.pictures_and_misfits(image)[0]

    def pictures_and_misfits(self, image: Tensor) -> tuple[dict[str, Picture], list[str]]:
        """As ``pictures``; and what their files cannot hold, counted for each task."""
        size = (image.shape[-2], image.shape[-1])
        resized = image
        if not self.original:
            whole = Sample(image, {}, "")
            resized = fitted(whole, self.config.image_size, self.info.turned, False).image
        with torch.inference_mode():
            pixels = resized.to(self.device).float() / 255
            maps = predict(self.model, self.tasks, pixels, size, self.views)
        shown = torch.from_numpy(photograph(image.numpy())).permute(2, 0, 1)
        pictures: dict[str, Picture] = {}
        misfits = []
        for task in self.tasks:
            prediction = maps[task.name].cpu()
            pictures |= task.maps(shown, prediction, self.info.palette)
            values = task.exact(prediction) if self.exact else None
            if values is not None:
                pictures[task.name] = Image.fromarray(values)
            elif misfit := task.misfits(prediction):
                misfits.append(f"{task.name}: {misfit} (--float keeps them)")
        return pictures, misfits

    def legend(self) -> list[str]:
        """What the values in each task's file mean, a line each."""
        lines = []
        for task in self.tasks:
            if self.exact and task.exact(torch.zeros(1, 1)) is not None:
                lines.append(f"NAME_{task.name}.tiff: 32-bit float, {task.unit}")
            elif task.map_values:
                lines.append(f"NAME_{task.name}.png: {task.map_values}")
        return lines


def predict_images(
    mapper: Mapper, images: Mapping[str, Path], output: Path, listener: Listener
) -> int:
    """Write maps of ``images``, by name, into ``output``. Returns the number of unreadable ones."""
    failed = 0
    listener.begin("predict", len(images))
    for name, path in images.items():
        try:
            image = mapper.read(path)
        except DataError as error:
            failed += 1
            listener.message(f"left out: {error}")
            listener.step()
            continue
        pictures, misfits = mapper.pictures_and_misfits(image)
        for misfit in misfits:
            listener.message(f"{path}: {misfit}")
        for suffix, picture in pictures.items():
            content = ("tiff", tiff(picture)) if picture.mode == "F" else ("png", png(picture))
            write_atomic(output / f"{name}_{suffix}.{content[0]}", content[1], "-o")
        listener.step(path.name)
    return failed


def png(picture: Picture) -> bytes:
    """A picture as the bytes of a PNG file, with the texts of its ``info``."""
    out, texts = io.BytesIO(), PngInfo()
    for key, text in picture.info.items():
        if isinstance(text, str):
            texts.add_text(str(key), text)
    picture.save(out, "PNG", pnginfo=texts)
    return out.getvalue()


def tiff(picture: Picture) -> bytes:
    """A picture of 32-bit floats as the bytes of a TIFF file."""
    out = io.BytesIO()
    picture.save(out, "TIFF")
    return out.getvalue()
