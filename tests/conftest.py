"""Small data sets in their on-disk layout, and a way to call the command line."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from benchmark.run import timing


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """CamVid's layout: 6 train, 2 val, 3 test images of 64×48 with a class for each half."""
    root = tmp_path / "camvid"
    random = np.random.default_rng(0)
    for split, count in {"train": 6, "val": 2, "test": 3}.items():
        lines = []
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for index in range(count):
            labels = np.full((48, 64), index % 11, np.uint8)
            labels[:, 32:] = 3
            labels[:2] = 11
            image = np.repeat(labels[..., None] * 20, 3, axis=2)
            image = (image + random.integers(0, 20, image.shape)).astype(np.uint8)
            Image.fromarray(image).save(root / split / f"{index}.png")
            Image.fromarray(labels).save(root / f"{split}annot" / f"{index}.png")
            lines.append(f"{split}/{index}.png {split}annot/{index}.png")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def cli() -> Callable[..., Result]:
    """Calls ``python cli.py …`` in this process; an exception that is no exit is raised."""
    from cli import main

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End-to-end runs take longest: they begin first, so that no process waits for them at last."""
    items.sort(key=lambda item: item.path.name != "test_end_to_end.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool | None, bool | None]:
    """Runs in this process are timed for an instant; those of fast tests do not measure memory.

    ``memory_pass`` brings back that pass, which starts a process. A hook and no fixture, so that
    runs that a module's fixture makes are quick too.
    """
    names = {mark.name for mark in item.iter_markers()}
    threads, time_models = torch.get_num_threads(), timing.time_models
    instant = {"min_time": 0.01, "warmup_time": 0.0, "block": 0.01}
    unmeasured = {"forward_bytes": None, "weights_bytes": None, "how": "", "error": "left out"}

    def briefly(*arguments: Any, **options: Any) -> Any:
        return time_models(*arguments, **options | instant)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time_models", briefly)
        if not names & {"slow", "memory_pass"}:
            patch.setattr(timing, "peak_memory", lambda *_, **__: unmeasured)
        try:
            return (yield)
        finally:
            torch.set_num_threads(threads)  # a run sets those that it asks for
