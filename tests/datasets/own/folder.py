"""A small folder of the user's own data with every kind of ground truth."""

from pathlib import Path

import numpy as np
from PIL import Image

YAML = r"""name: discs
images: rgb/*.jpg
targets:
  segmentation: {files: labels/*.png, classes: [background, disc, ring], ignore: 255}
  depth: {files: depth/*.png, metres_per_unit: 0.001, invalid: [0, 65535], range: [0.1, 10]}
  saliency: {files: masks/*.png}
  edges: {files: [edges/*_1.png, edges/*_2.png]}
splits: {val: 0.2, test: 0.3, seed: 0, group: '(.*)_\d+'}
licence: CC0
citation: nobody
"""
H, W = 48, 64


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    """Write an image, in folders made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]
    return path


def maps(seed: int) -> dict[str, np.ndarray]:
    """Image, labels 0, 1, 2 and 255, millimetres, mask and boundary of a disc within a ring."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    distance = np.hypot(y - random.integers(18, 30), x - random.integers(20, 44))
    labels = np.select([distance < 8, distance < 14], [1, 2], 0).astype(np.uint8)
    labels[0] = 255
    depth = np.where(distance < 14, 1500, 3000 + 10 * y).astype(np.uint16)
    depth[:, 0], depth[:, 1] = 0, 65535
    image = np.where(distance < 14, 200, 60)[..., None] + random.integers(0, 50, (H, W, 3))
    mask = ((distance < 14) * 255).astype(np.uint8)
    marks = ((np.abs(distance - 14) < 1) * 255).astype(np.uint8)
    return {
        "image": image.astype(np.uint8),
        "labels": labels,
        "depth": depth,
        "mask": mask,
        "marks": marks,
    }


def discs(root: Path, count: int = 24, yaml: str = YAML) -> Path:
    """``count`` samples, ``clip0_000`` … in clips of three, and their ``dataset.yaml``."""
    for index in range(count):
        name, arrays = f"clip{index // 3}_{index:03d}", maps(index)
        save(root / f"rgb/{name}.jpg", arrays["image"], quality=95)
        save(root / f"labels/{name}.png", arrays["labels"])
        save(root / f"depth/{name}.png", arrays["depth"])
        save(root / f"masks/{name}.png", arrays["mask"])
        save(root / f"edges/{name}_1.png", arrays["marks"])
        save(root / f"edges/{name}_2.png", np.roll(arrays["marks"], 1, 0))
    (root / "dataset.yaml").write_text(yaml)
    return root
