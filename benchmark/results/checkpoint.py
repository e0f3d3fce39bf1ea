"""A run's trained network: written by the runner, opened again by what uses networks."""

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
from benchmark.experiment.network import NetworkSpec, build_model, spec_of
from benchmark.experiment.plan import as_resolved, make_tasks
from benchmark.results.layout import FILE
from benchmark.results.store import read
from common.errors import UsageError, UserError, first_line, reason
from common.files import write_atomic
from models.predictor import DensePredictor, Predictor, plain
from tasks.base import Task

SUFFIX = ".safetensors"


def checkpoint_file(folder: Path, which: str) -> Path:
    """Where a run's ``best`` or ``last`` weights are."""
    return folder / f"{which}{SUFFIX}"


def save_checkpoint(folder: Path, which: str, model: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write the ``best`` or ``last`` weights of a run, with ``facts`` about them beside."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    write_atomic(checkpoint_file(folder, which), to_bytes(tensors))
    write_atomic(folder / f"{which}.json", json.dumps(facts, indent=1) + "\n")


def load_checkpoint(folder: Path, which: str, model: nn.Module) -> None:
    """Load ``best`` or ``last`` weights of a run into its network."""
    path = checkpoint_file(folder, which)
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{path}: not this run's weights ({first_line(error)})") from error


def _check_fits(path: Path, spec: NetworkSpec) -> None:
    """Raises UserError for weights that are not as many as the network's, before it is built.

    What result.json describes may be of any size; what its weights take is on the disk already.
    """
    try:
        with torch.device("meta"):
            wanted = sum(tensor.numel() for tensor in spec.build().state_dict().values())
    except Exception:  # some models compute with numbers while they are built: they are tried
        return
    try:
        with safe_open(path, framework="pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        held = sum(map(math.prod, shapes))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not this run's weights ({first_line(error)})") from error
    if held != wanted:
        raise UserError(f"{path}: not this run's weights: {held} numbers where it has {wanted}")


@dataclass
class Checkpoint:
    """A trained network with the run that it comes from.

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
        """The run's."""
        return self.path if self.path.is_dir() else self.path.parent


def open_checkpoint(path: Path) -> Checkpoint:
    """The network of a run's folder (the weights that were scored), or of one of its files.

    Nothing but the folder is needed: neither the backbone's first weights nor a wiring's file.
    Raises UsageError where ``path`` is no such thing, UserError for damaged weights.
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
        bare = config.model_copy(update={"weights": None, "pretrained": False})
        tasks = make_tasks(config)
        _check_fits(checkpoint_file(folder, which), spec_of(bare, tasks))
        model = build_model(bare, tasks)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{error}: pip install -e . brings what is needed") from error
    except Exception as error:  # what was edited by hand may describe no network at all
        raise UsageError(
            f"{folder / FILE}: describes no network that can be built ({reason(error)}): take the "
            "run's own file"
        ) from error
    load_checkpoint(folder, which, model)
    return Checkpoint(path, which, result.key, config, tasks, model.eval())


def load_model(run: str | Path) -> Predictor:
    """The trained network of a run: images [B, 3, H, W], RGB in 0…1 → logits [B, channels, H, W].

    run: its folder (the weights that were scored), or the best.safetensors or last.safetensors in
    it. On the CPU, in eval mode; else as ``create_model`` gives it: of several tasks the logits by
    name. Raises UsageError where ``run`` is no such thing, UserError for damaged weights.
    """
    return plain(open_checkpoint(Path(run).expanduser()).model)
