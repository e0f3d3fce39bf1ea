"""Files that are written whole or not at all, locks of folders, checksums."""

import contextlib
import errno
import glob
import hashlib
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from common.errors import UsageError, UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
HOST = re.sub(r"[^A-Za-z0-9]", "_", platform.node())[:60]


def write_atomic(path: Path, content: str | bytes, option: str = "--results") -> None:
    """Write ``path`` so that a reader, or a crash, sees the old content or the new, never half.

    Raises UserError that names the path, the reason and the ``option`` that chooses the path if it
    cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with whole_file(path, option) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def whole_file(path: Path, option: str = "--results") -> Iterator[Path]:
    """Yields a temporary file, which becomes ``path`` at the end; an error leaves nothing.

    Temporary files of killed processes of this machine are removed. Raises UserError as
    ``write_atomic`` does, also for a device or a pipe, which it would replace.
    """
    check_target(path, option)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        start, end = f".{path.name[:100]}.", ".partial"
        for other in path.parent.glob(f"{glob.escape(start)}{HOST}-*{end}"):
            if not _runs(other.name[len(start) + len(HOST) + 1 :].partition("-")[0]):
                other.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(end, f"{start}{HOST}-{os.getpid()}-", path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error, option) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def check_target(path: Path, option: str) -> None:
    """Raises UsageError for a folder, a device or a pipe, which no file can replace."""
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "is a folder" if path.is_dir() else "is no regular file")
    except OSError as error:  # also for names that are too long
        raise UsageError(str(cannot_write(path, error, option))) from error


def _runs(pid: str) -> bool:
    """Whether a process of this machine has that number."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:  # another user's
        return True
    return True


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Within the block this process holds the lock of ``folder``, which must exist.

    Yields whether it has waited for another process; ``waiting`` is then called first, and may
    raise. A process that ends in any way releases its lock. A file system without locks lets
    everyone in.
    """
    path = folder / LOCK
    waited = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not waited and not _lock(handle, wait=False):
                waited = True
                waiting()
            if waited:
                _lock(handle, wait=True)
            if _is_open_as(path, handle):  # else removed by its owner, or already another's
                try:
                    yield waited
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(handle)


def _lock(handle: int, wait: bool) -> bool:
    """Lock an open file. False: another process has it, and ``wait`` is false."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have none
        return True
    return True


def _is_open_as(path: Path, handle: int) -> bool:
    try:
        there, opened = path.stat(), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)


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
