"""Names of the files in a run's or a search's folder; moving and removing them."""

import shutil
from contextlib import suppress
from pathlib import Path

from common.files import locked, whole_file

FILE = "result.json"
FAILED = "failed.json"
"""Result of a failed repetition of a finished run."""
TRACEBACK = "traceback.txt"
FOLDER = "training"
"""Folder within a run's or a search's, for the files of a training under way."""
FILES = ("state.safetensors", "state-before.safetensors")
EVENTS = "events.out.tfevents.*"
PICTURES = "samples"


def _outcome(folder: Path) -> list[Path]:
    """The files that a training leaves when it ends: all but its saved states."""
    return [path for path in folder.rglob("[!.]*") if path.is_file() and path.name not in FILES]


def remove_outcome(folder: Path) -> None:
    for path in _outcome(folder):
        path.unlink(missing_ok=True)


def hand_over(folder: Path, target: Path) -> None:
    """Copy the files that a training leaves into ``target``, where they replace older ones.

    They stay in ``folder`` until ``clear``: a process that is killed in between loses nothing.
    """
    files = _outcome(folder)
    shutil.rmtree(target / PICTURES, ignore_errors=True)
    for old in target.glob(EVENTS):
        old.unlink()
    for path in files:
        place = target / path.relative_to(folder)
        with whole_file(place) as temporary:
            shutil.copyfile(path, temporary)


def clear(folder: Path) -> None:
    """Remove ``folder`` of a finished training, if it exists."""
    for name in FILES:  # first, because without them nothing uses the rest
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def clear_finished(record: Path) -> None:
    """``clear`` the folder beside ``record``, a finished training's, if a killed process left it.

    A state that is newer than ``record`` belongs to a later training and stays.
    """
    folder = record.parent / FOLDER
    states = [path.stat().st_mtime_ns for path in map(folder.joinpath, FILES) if path.is_file()]
    if states and record.is_file() and record.stat().st_mtime_ns >= max(states):
        clear(folder)


def tidy(record: Path) -> None:
    """``clear_finished`` by a process that only reads, unless another process works there."""

    def busy() -> None:
        raise BlockingIOError

    if (record.parent / FOLDER).exists():
        with suppress(OSError), locked(record.parent, busy):
            clear_finished(record)
