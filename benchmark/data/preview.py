"""A contact sheet of a data set: images, their coloured targets, and both after augmentation."""

import io
from collections.abc import Sequence

from PIL import Image

from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.numerics import seed_everything
from benchmark.experiment.plan import info_of
from benchmark.training.batches import make_augment
from common.drawing import photograph
from common.errors import UsageError
from datasets.base import TARGETS
from datasets.pipeline import Resized, Split

GAP = 4


def contact_sheet(
    config: ResolvedRun, part: Split, count: int, targets: Sequence[str] = ()
) -> bytes:
    """A PNG with a row for each sample: image, targets, and both after augmentation.

    count: number of samples, spread over ``part``. targets: their names; default: the task's own.
    With several targets, rows have no augmentation. Raises UsageError for an unknown target.
    """
    names = list(targets) or [config.task]
    for name in names:
        if name not in part[0].targets:
            has = ", ".join(part[0].targets)
            raise UsageError(f"--target {name}: data set {config.dataset} has {has}")
    palette = info_of(config).palette
    augment = make_augment(config)
    seed_everything(config.seed)
    data = Resized(part, config.image_size, names, targets=True)
    step = max(1, len(part) // count)
    rows = []
    for index in range(0, min(len(part), step * count), step):
        image, maps = data[index].image, data[index].targets
        tiles = [photograph(image.numpy())]
        tiles += [TARGETS.get(n)().draw(m, palette) for n, m in maps.items()]
        if len(names) == 1:
            images, changed = augment(image[None].float() / 255, {n: maps[n][None] for n in names})
            tiles.append(photograph((images[0] * 255).to(image.dtype).numpy()))
            tiles += [TARGETS.get(n)().draw(m[0], palette) for n, m in changed.items()]
        rows.append(tiles)
    height = max(tile.shape[0] for tiles in rows for tile in tiles) + GAP
    widths = [max(tiles[i].shape[1] for tiles in rows) + GAP for i in range(len(rows[0]))]
    sheet = Image.new("RGB", (sum(widths) - GAP, height * len(rows) - GAP), "white")
    for y, tiles in enumerate(rows):
        for x, tile in enumerate(tiles):
            sheet.paste(Image.fromarray(tile), (sum(widths[:x]), y * height))
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()
