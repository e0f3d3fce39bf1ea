"""``--init``: the network of another run as the start of a training."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from benchmark.experiment.config import NetworkConfig, RunConfig
from common.errors import DataError, UsageError, first_line
from common.limits import RESULT, WEIGHTS, check_size, parse_json, printable, read_bytes
from common.validation import message_of

RECORD = "result.json"
"""As ``benchmark.results.layout.FILE``, which lies above."""
Config = TypeVar("Config", bound=NetworkConfig)


@dataclass(frozen=True)
class Initial:
    """The run whose network another begins with. file: its weights."""

    path: Path
    file: Path
    config: RunConfig

    @classmethod
    def open(cls, path: Path) -> "Initial":
        """The run of a folder (the weights that were scored) or of a file of weights in it.

        Raises UsageError if ``path`` is neither.
        """
        if not path.exists():
            raise UsageError(f"--init {path}: no such folder or file: name a run's folder")
        folder = path if path.is_dir() else path.parent
        try:
            content = parse_json(read_bytes(folder / RECORD, RESULT))
            config = RunConfig.model_validate(content["config"])
        except FileNotFoundError:
            raise UsageError(
                f"--init {path}: no {RECORD} in {folder}: name a finished run, or use "
                "--weights for a file of another program"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            reason = printable(f"{where}: {message_of(first)}", 200)
            raise UsageError(f"--init {path}: {RECORD} is no result ({reason})") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = printable(first_line(error), 200)
            raise UsageError(f"--init {path}: {RECORD} is no result ({reason})") from None
        file = folder / f"{config.score}.safetensors" if path.is_dir() else path
        if not file.is_file() or file.suffix != ".safetensors":
            raise UsageError(
                f"--init {path}: no weights there: name a run's folder, or the best.safetensors or "
                "last.safetensors in it"
            )
        return cls(path, file, config)

    def followed_by(self, config: Config, channels: int) -> Config:
        """``config`` with this run's backbone, and its mean and std for images of ``channels``.

        What ``config`` says itself stays. Raises UsageError for another backbone.
        """
        mine = self.config
        if config.backbone is not None and mine.backbone is not None:
            model, other = (name.partition(".")[0] for name in (config.backbone, mine.backbone))
            if model != other:
                raise UsageError(
                    f"--backbone {config.backbone}: the run of --init {self.path} has "
                    f"{mine.backbone}: leave --backbone out, or name another run"
                )
        values: dict[str, object] = {"backbone": config.backbone or mine.backbone}
        if not config.backbone_args:
            values["backbone_args"] = mine.backbone_args
        for name in ("mean", "std"):
            numbers = getattr(mine, name)
            if getattr(config, name) is None and numbers is not None and len(numbers) == channels:
                values[name] = numbers
        return config.model_copy(update=values)

    def tensors(self) -> dict[str, Tensor]:
        """The run's weights. Raises DataError for a damaged file."""
        try:
            check_size(self.file, WEIGHTS)
            return dict(load_file(self.file))
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(
                f"{self.file}: not a readable weights file ({first_line(error)}): check --init"
            ) from error
