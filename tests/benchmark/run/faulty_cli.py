"""The command line with a fault in one of several processes; FAULT says which. Run by torchrun."""

import os
import signal
from collections.abc import Mapping
from typing import Any

from benchmark.experiment import distributed
from benchmark.run import runner
from benchmark.training.keeper import Keeper
from cli import main
from common.errors import UserError

save, evaluate = Keeper.save, runner.evaluate


def full_disk(self: Keeper, step: int, state: Mapping[str, Any]) -> None:
    if distributed.lead():
        raise UserError("state.safetensors: cannot be written (No space left on device)")
    save(self, step, state)


def stopped(*arguments: Any) -> None:
    if distributed.rank() == 1:
        signal.raise_signal(signal.SIGTERM)
    evaluate(*arguments)


if __name__ == "__main__":
    if os.environ.get("FAULT") == "disk":
        Keeper.save = full_disk  # type: ignore[method-assign]
    if os.environ.get("FAULT") == "validation":
        runner.evaluate = stopped
    main()
