"""Results for tests of the page: made up, with strips and failures."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmark.experiment.config import RunConfig
from benchmark.experiment.plan import command_of
from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.reported import add_reported
from benchmark.leaderboard.rows import Board
from benchmark.leaderboard.runtimes import with_runtimes
from benchmark.results.result import PairScores, Result, TaskScores

METRICS = {
    "segmentation": {"miou": True, "macc": True, "aacc": True},
    "depth": {"abs_rel": False, "rmse": False, "delta1": True},
    "saliency": {"maxf": True, "meanf": True, "mae": False, "smeasure": True},
    "edges": {"ods": True, "ois": True, "ap": True, "r50": True},
}
DECODERS = ("sparsemask", "fcn", "unet-connectivity", "smp-fpn", "smp-unet", "fully-dense")
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<!--\u2028"


def result(
    decoder: str = "fcn",
    seed: int = 0,
    score: float = 0.5,
    task: str = "segmentation",
    dataset: str = "camvid",
    backbone: str = "test_resnet",
    device: str = "CPU A (2 cores)",
    threads: int = 2,
    epochs: int = 3,
    cost: float = 1.0,
    **values: Any,
) -> Result:
    """A finished run whose metrics are near ``score`` and whose costs grow with ``cost``."""
    higher = METRICS[task]
    config = RunConfig(task=task, dataset=dataset, decoder=decoder, seed=seed, backbone=backbone,
                       image_size=(96, 96), epochs=epochs, lr=0.01, optimizer="sgd")  # fmt: skip
    main = next(iter(higher))
    metrics = {name: score * (1 - 0.07 * i) for i, name in enumerate(higher)}
    base: dict[str, Any] = {
        "key": f"{abs(hash_of(task, dataset, decoder, backbone, device, threads, seed)):010x}"[:10],
        "status": "finished",
        "config": config,
        "protocol": f"{dataset}/{task}/test/{main}/96x96",
        "columns": list(higher),
        "higher_is_better": higher,
        "units": {name: "m" if name == "rmse" else "1" for name in higher},
        "metrics": metrics,
        "intervals": {main: (score - 0.02, score + 0.02)},
        "counts": {"images": 233},
        "constant": {"value": 1.0, "metrics": dict.fromkeys(higher, 0.1)},
        "params": {"backbone": 2_000_000, "decoder": int(60_000 * cost), "head": 1_430},
        "macs": {"backbone": 10**9, "decoder": int(5e7 * cost), "head": 10**6},
        "speed": {"median_ms": 9.0 + cost, "p5_ms": 9.0, "p95_ms": 11.0 + cost,
                  "fps": 1000 / (9.0 + cost), "session": "s", "fused": True},
        "seconds": {"data": 1.0, "train": 55.0, "score": 4.0, "total": 60.0},
        "history": [
            {"epoch": float(e), "loss": 2 / e + 0.01 * seed, "lr": 0.01 / e,
             f"val/{main}": score * (1 - 0.5 / e) + 0.003 * seed}
            for e in range(1, epochs + 1)
        ],
        "best_epoch": epochs,
        "environment": {"python": "3.11.7", "versions": {"torch": "2.8.0"}, "device": device,
                        "threads": threads, "commit": "ab" * 20, "uncommitted_changes": False},
        "command": command_of(config),
    }  # fmt: skip
    return Result(**{**base, **values})


def hash_of(*parts: object) -> int:
    """A number from ``parts``, the same in every process."""
    total = 7
    for character in "|".join(map(str, parts)):
        total = (total * 131 + ord(character)) % 16**10
    return total


def failed(
    decoder: str = "encnet", error: str = "the loss is nan at step 2", **values: Any
) -> Result:
    """A run that failed."""
    nothing = {"protocol": "", "metrics": {}, "columns": [], "intervals": {}, "history": []}
    given: dict[str, Any] = {**nothing, "speed": None, **values}
    return result(decoder, status="failed", error=error, **given)


def in_pair(
    run: Result, runtime: str, precision: str, score: float, milliseconds: float
) -> PairScores:
    """The network of ``run`` as it ships."""
    scores = run.model_dump(include=set(TaskScores.model_fields))
    main = run.columns[0]
    scores |= {"metrics": {**run.metrics, main: score},
               "intervals": {main: (score - 0.02, score + 0.02)}}  # fmt: skip
    speed = {"median_ms": milliseconds, "fps": 1000 / milliseconds, "session": "s",
             "interleaved_with": ["all"]}  # fmt: skip
    return PairScores(runtime=runtime, precision=precision, speed=speed,
                      tasks={run.config.task: TaskScores(**scores)})  # fmt: skip


def many(folder: Path | None = None, seeds: int = 5, epochs: int = 30) -> list[Result]:
    """Runs of eight boards, 13 rows each: 520 with five seeds. folder: for strips of seed 0."""
    found = []
    random = np.random.default_rng(0)
    places = [(task, dataset, device) for task, dataset in (
        ("segmentation", "camvid"), ("depth", "scenes"), ("saliency", "duts"), ("edges", "bsds500"),
    ) for device in ("CPU A (2 cores)", "GPU B")]  # fmt: skip
    for task, dataset, device in places:
        for backbone in ("test_resnet", "mobilenetv2_100"):
            for place, decoder in enumerate(DECODERS):
                score = 0.35 + 0.05 * place + 0.1 * float(random.random())
                for seed in range(seeds):
                    wobble = 0.01 * float(random.standard_normal())
                    found.append(
                        result(decoder, seed, score + wobble, task, dataset, backbone, device,
                               epochs=epochs, cost=1 + 30 * float(random.random()) * (place + 1))
                    )  # fmt: skip
                    if folder is not None and seed == 0:
                        found[-1].folder = folder / found[-1].key
                        strips(found[-1].folder, task)
        found += [failed(task=task, dataset=dataset, device=device, seed=s) for s in range(seeds)]
    return found


def strips(folder: Path, task: str, images: int = 3) -> None:
    """Pictures of ``images`` scored images: coarse noise, larger than real ones."""
    for number in range(images):
        for part in ("image", "truth", "prediction"):
            seed = hash_of(task, number, part if part != "prediction" else folder.name)
            coarse = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
            out = io.BytesIO()
            Image.fromarray(coarse).resize((192, 144)).save(out, "WEBP", quality=75)
            path = folder / "samples" / f"{task}_{number}_img{number}_{part}.webp"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(out.getvalue())


def views(results: Sequence[Result]) -> list[Board]:
    """Boards of ``results``, as they ship too, with what was published for their data sets."""
    tables = [with_runtimes(board) for board in boards(results)]
    add_reported(tables)
    return tables
