"""Maps of a user's own images by a trained network, as files to work with and to look at."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmark.results.checkpoint import Checkpoint
from benchmark.scoring.views import Views, predict
from common.errors import DataError, UsageError
from common.files import write_atomic
from common.progress import Listener
from datasets.base import DATASETS, Sample
from datasets.drawing import class_colours
from datasets.files import SUFFIXES, read_any_image
from datasets.pipeline import fitted
from tasks.base import Task

Picture = Image.Image
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
MOST_MM = 65_535


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
        self.colours = class_colours(self.info.palette)

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
            found |= drawn(task, image, maps[task.name].cpu(), self.colours)
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


def drawn(
    task: Task, image: Tensor, prediction: Tensor, colours: np.ndarray
) -> Mapping[str, Picture]:
    """What is written of a task's prediction [H, W] for ``image`` [3, H, W], by file suffix.

    - segmentation: the class map as a palette image, and the image under it with a legend
    - depth: 16-bit millimetres (65,535: that or more), and colours with a scale in metres
    - saliency, edges: 8-bit, 255 = certain
    """
    values = prediction.numpy()
    if task.name == "segmentation":
        classes = Image.fromarray(values.astype(np.uint8))
        classes.putpalette(colours.astype(np.uint8).tobytes())
        names = getattr(task, "classes", ())
        return {task.name: classes, f"{task.name}_overlay": _overlay(image, values, names, colours)}
    if task.name == "depth":
        metric = np.clip(np.rint(values * 1000), 0, MOST_MM).astype(np.uint16)
        return {task.name: Image.fromarray(metric), f"{task.name}_view": _depth_view(values)}
    return {task.name: Image.fromarray(np.rint(values * 255).astype(np.uint8))}


def _overlay(
    image: Tensor, classes: np.ndarray, names: Sequence[str], colours: np.ndarray
) -> Picture:
    photograph = image.permute(1, 2, 0).numpy()
    mixed = (0.45 * photograph + 0.55 * colours[classes]).astype(np.uint8)
    share = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
    seen = [int(c) for c in np.argsort(-share, kind="stable") if share[c] > 0]
    rows = [(names[c], f"{share[c]:.1%}", tuple(int(x) for x in colours[c])) for c in seen]
    return _beside(mixed, rows)


def _depth_view(metres: np.ndarray) -> Picture:
    log = np.log(np.maximum(metres, 1e-6))
    low, high = float(log.min()), float(log.max())
    shades = matplotlib.colormaps["magma"]
    nearness = 1 - (log - low) / max(high - low, 1e-6)
    picture = (shades(nearness)[..., :3] * 255).astype(np.uint8)
    places = np.linspace(0, 1, 6) if high > low else np.zeros(1)
    marks = np.exp(low + places * (high - low))
    # as many decimals as tell the marks apart
    digits = next(
        n for n in range(2, 9) if n == 8 or len({f"{m:.{n}f}" for m in marks}) == len(marks)
    )
    rows = [
        (f"{mark:.{digits}f} m", "", tuple(int(255 * x) for x in shades(1 - place)[:3]))
        for mark, place in zip(marks, places, strict=True)
    ]
    return _beside(picture, rows)


def _beside(picture: np.ndarray, rows: Sequence[tuple[str, str, tuple[int, ...]]]) -> Picture:
    """The picture with a legend to its right: a swatch, a name and a number a row."""
    height, width = picture.shape[:2]
    size = int(np.clip(height / 24, 11, 28))
    line = size + size // 2
    font = ImageFont.truetype(str(FONT), size)
    label = max(int(font.getlength(f"{name}  {number}")) for name, number, _ in rows)
    panel = label + 3 * size
    canvas = Image.new("RGB", (width + panel, max(height, line * len(rows) + size)), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for index, (name, number, colour) in enumerate(rows):
        x, y = width + size // 2, size // 2 + index * line
        draw.rectangle((x, y, x + size, y + size), fill=colour, outline="black")
        draw.text((x + size + size // 2, y - 1), f"{name}  {number}".rstrip(), "black", font)
    return canvas


def png(picture: Picture) -> bytes:
    """A picture as the bytes of a PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
