"""The death of a process that reads images: noticed where a batch is awaited, then tried again."""

import signal

import pytest
import torch
from torch.utils.data import Dataset
from torch.utils.data._utils import signal_handling

from benchmark.experiment.readers import ATTEMPTS, Loader, with_readers
from common.errors import UserError
from common.progress import Silent
from datasets.base import Sample


class Images(Dataset[tuple[Sample | None, dict[int, str]]]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Sample | None, dict[int, str]]:
        return Sample(torch.full((3, 4, 4), index, dtype=torch.uint8), {}, ""), {}


def test_a_pass_leaves_the_handler_of_dead_children(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch sets its handler once in a process
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    batches = [images for images, _, _ in Loader(Images(), 1, batch_size=2)]
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[0, 1], [2]]
    assert signal.getsignal(signal.SIGCHLD) == before


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), ATTEMPTS),
        (RuntimeError("received 0 items of ancdata"), ATTEMPTS),
        (OSError("got end of file during message"), ATTEMPTS),
        (EOFError(), ATTEMPTS),
        (ConnectionResetError(104, "Connection reset by peer"), ATTEMPTS),
        (OSError(28, "No space left on device"), 1),
        (RuntimeError("of our own"), 1),
    ],
)
def test_what_tells_of_a_death_is_tried_again(error: Exception, times: int) -> None:
    tried = []

    def attempt() -> None:
        tried.append(1)
        raise error

    with pytest.raises(UserError if times > 1 else type(error)):
        with_readers(attempt, 1, Silent())
    assert len(tried) == times
