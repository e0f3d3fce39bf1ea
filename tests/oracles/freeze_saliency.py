"""Freezes the saliency measures of PySODMetrics on made-up pairs and on degraded real masks.

PySODMetrics pins an older numpy and scikit-image, so it runs in an environment of its own:

    uv venv .tox/sod && VIRTUAL_ENV=.tox/sod uv pip install pysodmetrics pillow
    .tox/sod/bin/python tests/oracles/freeze_saliency.py

This rewrites saliency.json beside the script. The pairs are drawn from legacy random streams, whose
bits are fixed for ever, and from arithmetic that rounds alike everywhere; their checksums are
frozen with the values, so that a test can tell a changed pair from a changed measure.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.uint8] | NDArray[np.float64]
Pair = tuple[str, Map, NDArray[np.uint8]]

FROZEN = Path(__file__).with_name("saliency.json")
DAVIS = Path(__file__).parents[2].parent / "shared" / "data" / "davis_foreground"
REAL = ("blackswan_00000", "bmx-trees_00045", "camel_00010", "dance-twirl_00025", "soapbox_00040")


def blobs(seed: int, height: int, width: int, count: int) -> NDArray[np.uint8]:
    """Mask 0/255, (height, width), of ``count`` seeded ellipses that may leave the image."""
    stream = np.random.RandomState(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(count):
        cy, cx, ry, rx = stream.random_sample(4) * [height, width, height / 4, width / 4]
        mask |= ((y - cy) / (ry + 1)) ** 2 + ((x - cx) / (rx + 1)) ** 2 <= 1
    return np.uint8(255) * mask


def lines(height: int, width: int, step: int) -> NDArray[np.uint8]:
    """Mask 0/255 of diagonals one pixel wide, ``step`` pixels apart."""
    y, x = np.mgrid[:height, :width]
    return np.uint8(255) * ((y + x) % step == 0)


def degrade(
    mask: NDArray[np.uint8], seed: int, radius: int, noise: int, shift: int = 0
) -> NDArray[np.uint8]:
    """A prediction for ``mask``: shifted down, box-blurred, with noise of up to ± ``noise``."""
    height, width = mask.shape
    side = 2 * radius + 1
    padded = np.pad(np.roll(mask, shift, axis=0).astype(np.int64), radius, mode="edge")
    sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    blurred = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    jitter = np.random.RandomState(seed).randint(-noise, noise + 1, size=(height, width))
    return np.clip(blurred // side**2 + jitter, 0, 255).astype(np.uint8)


def synthetic_pairs() -> Iterator[Pair]:
    """Name, prediction (uint8, or float64 in 0…1) and mask (uint8, 0…255) of each made-up image."""
    for seed, (height, width) in enumerate([(97, 131), (64, 64), (33, 200), (120, 90)]):
        mask = blobs(seed, height, width, 3)
        yield f"blobs {seed}", degrade(mask, seed, radius=3, noise=40, shift=seed), mask
    mask = blobs(10, 75, 101, 2)
    noise = np.random.RandomState(11).randint(0, 256, mask.shape).astype(np.uint8)
    yield "perfect", mask, mask
    yield "inverted", 255 - mask, mask
    yield "noise", noise, mask
    yield "low contrast", (degrade(mask, 12, radius=5, noise=10) // 4 + 90).astype(np.uint8), mask
    yield "grey mask", degrade(mask, 13, radius=2, noise=9), degrade(mask, 14, radius=4, noise=0)
    yield "real numbers", np.random.RandomState(15).random_sample(mask.shape), mask
    yield "real numbers, blurred", (degrade(mask, 16, 4, 60) + 0.5) / 512 + 0.125, mask
    thin = lines(61, 83, 9)
    yield "lines", degrade(thin, 17, radius=1, noise=30), thin
    yield "lines, missed", degrade(thin, 18, radius=1, noise=20, shift=4), thin
    for name, value in (("black", 0), ("grey", 128), ("white", 255)):
        yield f"constant {name}", np.full(mask.shape, value, dtype=np.uint8), mask
    for name, value in (("empty", 0), ("full", 255)):
        uniform = np.full(mask.shape, value, dtype=np.uint8)
        yield f"{name} mask", noise, uniform
        yield f"{name} mask, black", np.zeros_like(uniform), uniform
        yield f"{name} mask, white", np.full_like(uniform, 255), uniform
    for height, width in ((1, 17), (17, 1), (2, 2), (3, 5)):
        stream = np.random.RandomState(height * 100 + width)
        prediction = stream.randint(0, 256, (height, width)).astype(np.uint8)
        small = np.zeros((height, width), dtype=np.uint8)
        small[: (height + 1) // 2, : (width + 1) // 2] = 255
        yield f"size {height}x{width}", prediction, small
    corner = np.zeros((20, 30), dtype=np.uint8)
    corner[0, 0] = 255
    yield "one pixel", degrade(corner, 19, radius=1, noise=50), corner


def real_pairs() -> Iterator[Pair]:
    """Real masks of ``DAVIS``, each with a blurred and noisy copy of itself as the prediction."""
    from PIL import Image

    for seed, name in enumerate(REAL):
        mask = np.asarray(Image.open(DAVIS / "masks" / f"{name}.png").convert("L"))
        yield name, degrade(mask, seed, radius=2 + 4 * seed, noise=30, shift=5 * seed), mask


def checksum(*maps: Map) -> str:
    """First half of the SHA-256 of the maps' bytes."""
    return hashlib.sha256(b"".join(m.tobytes() for m in maps)).hexdigest()[:32]


def measure(pairs: list[Pair]) -> dict[str, float | None]:
    """PySODMetrics' values over ``pairs``, None for NaN. Real-valued maps are stretched to 0…1."""
    import py_sod_metrics as sod

    handler = sod.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3)
    f, mae, wf = sod.FmeasureV2({"fm": handler}), sod.MAE(), sod.WeightedFmeasure(beta=1)
    s, e = sod.Smeasure(alpha=0.5), sod.Emeasure()
    for _, prediction, mask in pairs:
        given, truth, normalize = prediction, mask, prediction.dtype == np.uint8
        if not normalize:
            given = (prediction - prediction.min()) / np.ptp(prediction)
            truth = mask > 128
        for measurer in (f, mae, wf, s, e):
            measurer.step(given, truth, normalize=normalize)
    f_curves, e_curves = f.get_results()["fm"], e.get_results()["em"]
    values = {
        "mae": mae.get_results()["mae"],
        "maxf": f_curves["dynamic"].max(),
        "meanf": f_curves["dynamic"].mean(),
        "adpf": f_curves["adaptive"],
        "wf": wf.get_results()["wfm"],
        "smeasure": s.get_results()["sm"],
        "maxe": e_curves["curve"].max(),
        "meane": e_curves["curve"].mean(),
        "adpe": e_curves["adp"],
    }
    return {
        name: None if math.isnan(value) else round(float(value), 9)
        for name, value in values.items()
    }


def freeze(pairs: list[Pair]) -> dict[str, object]:
    """Values of each pair by itself, and of all pairs without a None together."""
    images = {
        pair[0]: {"checksum": checksum(*pair[1:]), "values": measure([pair])} for pair in pairs
    }
    whole = [pair for pair in pairs if None not in images[pair[0]]["values"].values()]
    return {"images": images, "split": measure(whole)}


if __name__ == "__main__":
    frozen: dict[str, object] = {
        "made_by": "tests/oracles/freeze_saliency.py, whose docstring says how",
        "pysodmetrics": version("pysodmetrics"),
        "numpy": np.__version__,
        "synthetic": freeze(list(synthetic_pairs())),
    }
    if DAVIS.is_dir():
        frozen["davis_foreground"] = freeze(list(real_pairs()))
    elif FROZEN.exists():
        frozen["davis_foreground"] = json.loads(FROZEN.read_text())["davis_foreground"]
    FROZEN.write_text(json.dumps(frozen, indent=1, ensure_ascii=False) + "\n")
