"""Files that are either whole or not there."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common.errors import UserError


def write_atomic(path: Path, content: str | bytes, option: str = "--results") -> None:
    """Write ``path`` so that a reader, or a crash, sees the old content or the new, never half.

    Raises UserError that names the path, the reason and the ``option`` that chooses the path if it
    cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise cannot_write(path, error, option) from error


@contextlib.contextmanager
def whole_file(path: Path, option: str) -> Iterator[Path]:
    """Yields the file to write, which becomes ``path`` at the end; an error leaves nothing.

    What killed processes have left is removed. Raises UserError as ``write_atomic`` does.
    """
    start, end = f".{path.name}.", ".partial"
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.iterdir():
            if other.name.startswith(start) and other.name.endswith(end):
                other.unlink()
        handle, temporary = tempfile.mkstemp(end, start, path.parent)
        os.close(handle)
        yield Path(temporary)
        with Path(temporary).open("rb") as file:
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise cannot_write(path, error, option) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def cannot_write(path: Path, error: OSError, option: str = "--results") -> UserError:
    """The error for a path that cannot be written."""
    reason = error.strerror or " ".join(str(error).split())
    return UserError(f"{path}: cannot be written ({reason}): choose another place with {option}")


def check_writable(folder: Path) -> None:
    """Make ``folder``. Raises UserError unless files can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
