"""Maps of a user's own images by a trained network, as files to work with and to look at."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmark.results.checkpoint import Checkpoint
from benchmark.scoring.views import Views, predict
from common.drawing import Picture
from common.errors import DataError, UsageError
from common.files import write_atomic
from common.progress import Listener
from datasets.base import DATASETS, Sample
from datasets.files import SUFFIXES, read_any_image
from datasets.pipeline import fitted


def find_images(paths: Sequence[Path]) -> dict[str, Path]:
    """The images that ``paths`` name, by the name of their maps; of a folder, those that lie in it.

    That name is the file's without its ending, with it where two would be alike. Raises UsageError
    for a path that is not there, for none, and for two files of one name, whose maps would be one.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(
                p
                for p in path.iterdir()
                if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
            )
            found |= dict.fromkeys(inside)
        elif path.is_file():
            found[path] = None
        else:
            raise UsageError(f"{path}: no such image or folder")
    if not found:
        raise UsageError(f"{', '.join(map(str, paths))}: no image in it ({', '.join(SUFFIXES)})")
    stems = Counter(path.stem for path in found)
    named: dict[str, Path] = {}
    for path in found:
        name = path.stem if stems[path.stem] == 1 else path.name
        if name in named:
            raise UsageError(
                f"{named[name]} and {path} would be written as one: predict them into two "
                "folders (-o)"
            )
        named[name] = path
    return named


class Mapper:
    """A checkpoint's network on a device, which draws its maps of an image.

    Images are resized to the run's size, or with ``original`` taken as they are; the maps always
    have the image's own size.
    """

    def __init__(self, checkpoint: Checkpoint, views: Views, original: bool, device: str) -> None:
        self.config, self.tasks, self.views = checkpoint.config, checkpoint.tasks, views
        self.original, self.device = original, torch.device(device)
        self.model = checkpoint.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.info = DATASETS.get(self.config.dataset).info

    def pictures(self, image: Tensor) -> dict[str, Picture]:
        """What is written of every task for an image uint8 [3, H, W], by file suffix."""
        size = (image.shape[-2], image.shape[-1])
        taken = image
        if not self.original:
            whole = Sample(image, {}, "")
            taken = fitted(whole, self.config.image_size, self.info.turned, False).image
        with torch.inference_mode():
            pixels = taken.to(self.device).float() / 255
            maps = predict(self.model, self.tasks, pixels, size, self.views)
        found: dict[str, Picture] = {}
        for task in self.tasks:
            found |= task.maps(image, maps[task.name].cpu(), self.info.palette)
        return found


def predict_images(
    mapper: Mapper, images: Mapping[str, Path], output: Path, listener: Listener
) -> int:
    """Write maps of ``images``, by name, into ``output``. Returns how many could not be read."""
    failed = 0
    listener.begin("predict", len(images))
    for name, path in images.items():
        try:
            image = read_any_image(path)
        except DataError as error:
            failed += 1
            listener.message(f"left out: {error}")
            listener.step()
            continue
        for suffix, picture in mapper.pictures(image).items():
            write_atomic(output / f"{name}_{suffix}.png", png(picture), "-o")
        listener.step(path.name)
    return failed


def png(picture: Picture) -> bytes:
    """A picture as the bytes of a PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
