"""Images/s of a data set's files against its packed file: same size, in turns, page cache warm.

    python -m tests.studies.pack_speed camvid --data DIR --image-size 240x320 [--json FILE]

What is timed is a pass of the training loader over the training split, without the cache that
would read small splits only once.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmark.data.pack import pack
from benchmark.experiment.environment import environment
from common.memory import keep_freed_memory
from common.progress import Silent
from datasets import pipeline
from datasets.base import DATASETS
from datasets.hdf5 import COMPRESSIONS
from datasets.pipeline import Resized, collate, open_splits


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--image-size", default="240x320")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command line does
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pipeline.CACHE_BYTES = 0
    height, width = map(int, arguments.image_size.split("x"))
    task = next(iter(DATASETS.get(arguments.dataset).info.tasks))
    facts = []
    with tempfile.TemporaryDirectory() as folder:
        roots = {"files": arguments.data}
        for compression in COMPRESSIONS:
            roots[compression] = Path(folder) / f"{compression}.h5"
            pack(arguments.dataset, arguments.data, (task,), (height, width), compression,
                 roots[compression], False, Silent())  # fmt: skip
        data = {
            name: Resized(
                open_splits(arguments.dataset, root, task, (height, width))["train"],
                (height, width), task, targets=True,
            )
            for name, root in roots.items()
        }  # fmt: skip
        for workers in arguments.workers:
            rates: dict[str, list[float]] = {name: [] for name in data}
            loaders = {
                name: DataLoader(split, arguments.batch, collate_fn=collate, num_workers=workers,
                                 persistent_workers=workers > 0)
                for name, split in data.items()
            }  # fmt: skip
            for turn in range(arguments.rounds + 1):
                for name, loader in loaders.items():
                    start = time.perf_counter()
                    images = sum(len(batch.float().div_(255)) for batch, _ in loader)
                    if turn:  # the first pass starts workers and warms the page cache
                        rates[name].append(images / (time.perf_counter() - start))
            files = statistics.median(rates["files"])
            for name, found in rates.items():
                rate = statistics.median(found)
                size = roots[name].stat().st_size / 1e6 if name != "files" else None
                facts.append({"workers": workers, "source": name, "images_per_s": rate,
                              "spread": [min(found), max(found)], "speedup": rate / files,
                              "megabytes": size})  # fmt: skip
                about = "" if size is None else f"×{rate / files:.1f}, {size:.0f} MB"
                low, high = min(found), max(found)
                print(f"{workers} workers {name:<6} {rate:7.0f}/s ({low:.0f}–{high:.0f}) {about}")  # noqa: T201
    if arguments.json:
        rows = {"dataset": arguments.dataset, "image_size": [height, width], "rows": facts,
                "environment": environment("cpu")}  # fmt: skip
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
