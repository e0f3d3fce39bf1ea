"""The two sides of `compare`: results of a run's folder, a results folder or a git commit."""

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
    """Results and the name of their source. single: the source is one run's folder."""

    name: str
    results: list[Result]
    problems: list[str]
    single: bool = False


@contextmanager
def open_side(text: str, inside: Path) -> Iterator[Side]:
    """The results in the folder or commit ``text``, a commit's in a temporary folder until exit.

    An existing path wins over a commit of the same name. inside: the results folder in a commit.
    Raises UsageError if ``text`` is neither, UserError if it holds no readable result.
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
    # a run's folder is read as the only entry of its parent
    results, problems = collect(path.parent, [path.name]) if single else collect(path)
    if not results:
        reason = f" ({problems[0]})" if problems else f": no {FILE} in it or in its folders"
        raise UserError(f"{name}: no result{reason}")
    return Side(name, results, problems, single)


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
        # git writes no tree with a folder "..", but reads one
        named = path.name in (FILE, REPLICATES) and path.parent.name != ".."
        if not named or path.parent.parent != PurePosixPath(inside.as_posix()):
            continue
        size = int(facts.split()[-1])
        content = b"" if size > RESULT else _git("show", f"{commit}:./{file}")
        if content is not None:
            folder.mkdir(exist_ok=True)
            (folder / path.name).write_bytes(content)
            if size > RESULT:  # keeps the size without the content, so that collect reports it
                os.truncate(folder / path.name, size)
    if not any(target.iterdir()):
        raise UserError(f"{name}: no {inside.as_posix()}/*/{FILE} in this commit: give --results")


def _git(*arguments: str) -> bytes | None:
    """Output of git in the working directory; None if git fails or is missing."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
