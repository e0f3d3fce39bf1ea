"""The loop and its hooks, for a training that does nothing but record them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from benchmark.experiment.config import make_config
from benchmark.experiment.plan import resolve
from benchmark.training.batches import Batches
from benchmark.training.keeper import Keeper
from benchmark.training.learner import Learner
from benchmark.training.loop import Training
from common.progress import Silent
from datasets.base import DatasetInfo, Sample
from datasets.pipeline import Resized, Split

BATCHES = 2


class Grey:
    info = DatasetInfo("grey", "grey", {}, {})

    def __len__(self) -> int:
        return 2 * BATCHES

    def __getitem__(self, index: int) -> Sample:
        image = torch.full((3, 32, 32), index, dtype=torch.uint8)
        return Sample(image, {"depth": torch.ones(32, 32)}, str(index))


class Recorded(Training[list[str]]):
    """Each epoch's row tells its number. fails: at the end of which epoch."""

    def __init__(self, epochs: int, epoch_steps: int, fails: int = 0) -> None:
        values = {"task": "depth", "batch_size": 2, "image_size": "32"}
        config = resolve(make_config(values))
        model = nn.Conv2d(3, 1, 1)
        data = Resized(Split(Grey(), range(2 * BATCHES), "train"), (32, 32), "depth", targets=True)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        learner = Learner(config, model, [sgd], Batches(config, data), {})
        super().__init__("record", learner, epochs, epoch_steps)
        self.calls: list[str] = []
        self.fails = fails

    def losses_of(self, outputs: Any, targets: Any) -> tuple[Tensor, dict[str, Tensor]]:
        assert outputs.shape[0] == targets["depth"].shape[0]
        loss = outputs.mean()
        return loss, {"mean": loss}

    def step_name(self) -> str:
        return f"{self.step + 1}"

    def before_step(self) -> None:
        self.calls.append(f"before {self.step}")

    def after_step(self, loss: float, parts: Mapping[str, float]) -> str:
        assert parts == {"mean": loss}
        self.calls.append(f"after {self.step}")
        return f"{self.step} done"

    def scalars(self) -> dict[str, float]:
        return {"step/number": self.step}

    def end_epoch(self, keeper: Keeper | None) -> dict[str, float]:
        if self.epoch == self.fails:
            raise InterruptedError
        self.calls.append(f"end {self.epoch}")
        return {"epoch": self.epoch}

    def finish(self) -> list[str]:
        return self.calls

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "epoch": self.epoch}

    def restore(self, state: dict[str, Any]) -> str:
        self.step, self.epoch = state["step"], state["epoch"]
        return f"at {self.step} in epoch {self.epoch}"


class LogsLast(Recorded):
    logs_last_step: ClassVar[bool] = True


class Notes(Silent):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def begin(self, title: str, steps: int) -> None:
        self.heard.append(f"{title}: {steps}")

    def step(self, note: str = "") -> None:
        self.heard.append(note)

    def message(self, text: str) -> None:
        self.heard.append(text)


def no_log(*_: Any) -> None: ...


def test_hooks_come_in_order_and_an_epoch_need_not_be_a_pass() -> None:
    notes = Notes()
    assert BATCHES < 3  # an epoch takes up where the one before has left the data
    calls = Recorded(epochs=2, epoch_steps=3).fit(no_log, notes)
    first = ["before 0", "after 1", "before 1", "after 2", "before 2", "after 3", "end 1"]
    second = ["before 3", "after 4", "before 4", "after 5", "before 5", "after 6", "end 2"]
    assert calls == [*first, *second]
    assert notes.heard == ["record: 6", *(f"{step} done" for step in range(1, 7))]


@pytest.mark.parametrize(("kind", "last"), [(Recorded, []), (LogsLast, [12])])
def test_rows_of_steps_and_of_epochs_are_logged(kind: type[Recorded], last: list[int]) -> None:
    rows: list[tuple[int, str, float]] = []

    def log(step: int, scalars: Mapping[str, float]) -> None:
        rows.extend((step, name, value) for name, value in scalars.items())

    kind(epochs=2, epoch_steps=6).fit(log, Silent())
    of_steps = [(step, "step/number", step) for step in last]
    assert rows == [(6, "epoch", 1), (10, "step/number", 10), *of_steps, (12, "epoch", 2)]


def test_a_training_goes_on_between_the_last_step_and_the_end_of_an_epoch(tmp_path: Path) -> None:
    cut = Recorded(epochs=2, epoch_steps=2, fails=1)
    with pytest.raises(InterruptedError):
        cut.fit(no_log, Silent(), Keeper(tmp_path, {}, every=0))
    notes, again = Notes(), Recorded(epochs=2, epoch_steps=2)
    calls = again.fit(no_log, notes, Keeper(tmp_path, {}))
    assert calls == ["end 1", "before 2", "after 3", "before 3", "after 4", "end 2"]
    assert notes.heard == ["record: 4", "at 2 in epoch 1", "", "", "3 done", "4 done"]
    assert Recorded(2, 2).fit(no_log, Silent(), Keeper(tmp_path, {})) == []  # all of it is done
