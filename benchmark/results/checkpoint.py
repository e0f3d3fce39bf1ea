"""Checkpoints: the trained network of a run, to save and to open."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.network import NetworkSpec, spec_of, unfilled_model
from benchmark.experiment.plan import as_resolved, make_tasks
from benchmark.results.layout import FILE
from benchmark.results.store import read
from common.errors import UsageError, UserError, first_line, reason
from common.files import write_atomic
from models.predictor import DensePredictor, Predictor, plain
from tasks.base import Task

SUFFIX = ".safetensors"


def checkpoint_file(folder: Path, which: str) -> Path:
    """The file of a run's ``best`` or ``last`` weights."""
    return folder / f"{which}{SUFFIX}"


def save_checkpoint(folder: Path, which: str, model: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write the ``best`` or ``last`` weights of a run, and ``facts`` about them to a JSON file."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    write_atomic(checkpoint_file(folder, which), to_bytes(tensors))
    write_atomic(folder / f"{which}.json", json.dumps(facts, indent=1) + "\n")


def load_checkpoint(folder: Path, which: str, model: nn.Module) -> None:
    """Load a run's ``best`` or ``last`` weights into ``model``. Raises UserError if damaged."""
    path = checkpoint_file(folder, which)
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{path}: not this run's weights ({first_line(error)})") from error


def _check_fits(path: Path, spec: NetworkSpec) -> None:
    """Raises UserError if the file does not hold as many numbers as the network has weights.

    This is checked before the network takes memory: result.json may describe one of any size.
    """
    try:
        with torch.device("meta"):
            needed = sum(tensor.numel() for tensor in spec.build().state_dict().values())
    except Exception:  # some models cannot be built without numbers; loading checks them
        return
    try:
        with safe_open(path, framework="pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        held = sum(map(math.prod, shapes))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not this run's weights ({first_line(error)})") from error
    if held != needed:
        raise UserError(f"{path}: not this run's weights: {held} numbers where it has {needed}")


@dataclass
class Checkpoint:
    """A trained network and its run.

    which: ``best`` or ``last`` weights. model: on the CPU, in eval mode.
    """

    path: Path
    which: str
    key: str
    config: ResolvedRun
    tasks: list[Task]
    model: DensePredictor

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.path if self.path.is_dir() else self.path.parent


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a run's network from its folder (the weights that were scored) or a file of weights.

    The folder is enough: neither pretrained weights nor a wiring's file are read. Raises UsageError
    if ``path`` is neither, UserError for damaged weights.
    """
    if not path.exists():
        raise UsageError(f"--checkpoint {path}: no such folder or file: name a run's folder")
    folder = path if path.is_dir() else path.parent
    if not (folder / FILE).exists():
        raise UsageError(
            f"--checkpoint {path}: no {FILE} in {folder}: name the folder of a finished run"
        )
    try:
        result = read(folder)
    except ValueError as error:
        raise UsageError(f"{folder / FILE}: not a result ({first_line(error)})") from None
    which = result.config.score if path.is_dir() else path.stem
    other = path.is_file() and path.suffix != SUFFIX
    if other or not checkpoint_file(folder, which).is_file():
        if result.status == "failed":
            raise UsageError(f"--checkpoint {path}: that run failed ({result.error}): name another")
        raise UsageError(
            f"--checkpoint {path}: no weights there: name a run's folder, or the best{SUFFIX} or "
            f"last{SUFFIX} in it"
        )
    try:
        config = as_resolved(result.config)
        tasks = make_tasks(config)
        _check_fits(checkpoint_file(folder, which), spec_of(config, tasks))
        model = unfilled_model(config, tasks)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{error}: pip install -e . brings what is needed") from error
    except Exception as error:  # an edited file may describe no network at all
        raise UsageError(
            f"{folder / FILE}: describes no network that can be built ({reason(error)}): take the "
            "run's own file"
        ) from error
    load_checkpoint(folder, which, model)
    return Checkpoint(path, which, result.key, config, tasks, model.eval())


def load_model(run: str | Path) -> Predictor:
    """The trained network of a run: images [B, 3, H, W], RGB in 0…1 → logits [B, channels, H, W].

    run: its folder (the weights that were scored), or the best.safetensors or last.safetensors in
    it. The network is on the CPU in eval mode, and otherwise as ``create_model`` returns it: of
    several tasks it returns the logits by name. Raises UsageError if ``run`` is neither, UserError
    for damaged weights.
    """
    return plain(open_checkpoint(Path(run).expanduser()).model)
