"""What `compare` compares: the results of a run's folder, a results folder or a git commit."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from benchmark.results.layout import FILE
from benchmark.results.replicates import REPLICATES
from benchmark.results.result import Result
from benchmark.results.store import collect
from common.errors import UsageError, UserError
from common.limits import RESULT


@dataclass
class Side:
    """Results and where they come from. single: they are one run, named by its folder."""

    name: str
    results: list[Result]
    problems: list[str]
    single: bool = False


@contextmanager
def open_side(text: str, inside: Path) -> Iterator[Side]:
    """The results that ``text`` names; those of a commit lie in a temporary folder meanwhile.

    A path that exists wins over a commit of that name. inside: the results folder in a commit.
    Raises UsageError for what is neither, UserError for what holds no readable result.
    """
    path = Path(text).expanduser().resolve()
    if path.name == FILE and path.is_file():
        path = path.parent
    if path.is_dir():
        yield _read(text, path)
    elif path.exists():
        raise UsageError(f"{text}: neither a run's folder, a results folder nor a commit")
    else:
        commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
        if commit is None:
            raise UsageError(f"{text}: no such folder, and no commit of a repository here")
        with tempfile.TemporaryDirectory() as folder:
            _extract(text, commit.decode().strip(), inside, Path(folder))
            yield _read(text, Path(folder))


def _read(name: str, path: Path) -> Side:
    single = (path / FILE).is_file()
    # one run's folder is read as the only one of the folder around it
    found, problems = collect(path.parent, [path.name]) if single else collect(path)
    if not found:
        reason = f" ({problems[0]})" if problems else f": no {FILE} in it or in its folders"
        raise UserError(f"{name}: no result{reason}")
    return Side(name, found, problems, single)


def _extract(name: str, commit: str, inside: Path, target: Path) -> None:
    """Write the results and bootstrap replicates of ``commit`` under ``target``."""
    if inside.is_absolute():
        try:
            inside = inside.relative_to(Path.cwd())
        except ValueError:
            raise UsageError(f"--results {inside}: not inside {Path.cwd()}") from None
    listed = _git("ls-tree", "-r", "-z", "-l", commit, "--", f"{inside.as_posix()}/")
    for entry in (listed or b"").decode(errors="surrogateescape").split("\0"):
        facts, _, file = entry.partition("\t")
        path = PurePosixPath(file)
        folder = target / path.parent.name
        # git makes no tree with a folder .., but it reads one
        named = path.name in (FILE, REPLICATES) and path.parent.name != ".."
        if not named or path.parent.parent != PurePosixPath(inside.as_posix()):
            continue
        size = int(facts.split()[-1])
        content = b"" if size > RESULT else _git("show", f"{commit}:./{file}")
        if content is not None:
            folder.mkdir(exist_ok=True)
            (folder / path.name).write_bytes(content)
            if size > RESULT:  # as long as it is, but empty: it is left out for its size
                os.truncate(folder / path.name, size)
    if not any(target.iterdir()):
        raise UserError(f"{name}: no {inside.as_posix()}/*/{FILE} in this commit: give --results")


def _git(*arguments: str) -> bytes | None:
    """What git prints in the working directory; None if it fails or is not there."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
