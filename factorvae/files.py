"""The files that the project writes: their names, how one is written whole, and by one process."""

import errno
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from factorvae.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

PATIENCE_FOR_LOCK = 3.0  # seconds: the processes of a killed sweep take two to end

RUNS = "runs"  # where runs are, unless --output_dir says so
# In the folder of a run:
CHECKPOINT_NAME = "ckpt.pt"
CONFIG_NAME = "config.json"
STATS_NAME = "stats.csv"
LOG_NAME = "log.txt"
METRICS_NAME = "metrics.json"  # written by evaluate.py
# In the folder of a sweep, beside its runs' folders:
SWEEP_NAME = "study.json"
WRITTEN_IN_TRAINING = (CHECKPOINT_NAME, CONFIG_NAME, STATS_NAME, LOG_NAME, SWEEP_NAME)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write `path`'s new content to: flushed to the disk, then given its name.

    At any moment one whole file stands at `path`. Raises what writing raises.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_left_by_killed(path: Path) -> None:
    """What processes that were killed within `whole_file` have left of it."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


def version_of(path: Path) -> tuple[int, int, int] | None:
    """What is another after each time that `whole_file` writes there; None where no file is."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def json_object(path: Path) -> dict | None:
    """The JSON object in a file; None where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def strict_json(path: Path) -> object:
    """What a JSON file holds; NaN and Infinity are no JSON.

    Raises what reading raises, ValueError for other content and RecursionError where it is nested
    without end.
    """
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def check_writable(path: Path) -> None:
    """Raise the OSError that writing to `path` would; whatever is there stays as it is."""
    kind = _kind(path)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if kind is not None and not os.access(path, os.W_OK) and os.path.exists(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    target = Path(os.path.realpath(path))
    if not target.exists():
        with tempfile.TemporaryFile(dir=target.parent):
            pass


def write_text(path: Path, text: str) -> None:
    """Write `text` whole, in place of a file, or through a link, a pipe or a device.

    Where `path` is what the program's own output goes to, the text goes to the end of that.
    Raises what writing raises; a file is then as it was.
    """
    kind = _kind(path)
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        if os.path.exists(path) and _is_open_as(path, descriptor):
            stream.flush()
            with os.fdopen(os.dup(descriptor), "w") as file:
                file.write(text)
            return
    if kind in (None, stat.S_IFREG) and os.access(path.parent, os.W_OK):
        with whole_file(path) as file:
            file.write(text.encode())
    else:
        path.write_text(text)


def is_replaced(path: Path) -> bool:
    """Whether `write_text` leaves nothing of what is at `path`, or makes a file there.

    It is not where the text goes through a pipe or a device, or to the end of what the program's
    own output goes to.
    """
    if _is_open_as(path, 1) or _is_open_as(path, 2):
        return False
    return os.path.isfile(path) or not os.path.exists(path)


def _kind(path: Path) -> int | None:
    """What `path` itself is, without following a link, as S_IFREG, ...; None: nothing."""
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return None


def _is_open_as(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:  # closed
        return False


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """What cannot be written to `path` within the block is a UserError that says why."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror or error}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of a folder whole; UserError, and an earlier one as it was, where it fails."""
    with written_to(path), whole_file(path) as file:
        file.write(data)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make the folder, and have it for this process alone, until the block or the process ends.

    The lock is the kernel's, on the folder itself: no file tells of it, and a kill leaves nothing
    behind. File systems of several machines may know no such locks; the block then goes without.

    Raises:
        UserError: another process has it, or it cannot be made.
    """
    with written_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + PATIENCE_FOR_LOCK
        while not _lock(handle):
            if time.monotonic() > deadline:
                raise UserError(
                    f"{folder} is in use: another process trains there. Wait for it, stop it, or "
                    "choose another --output_dir"
                )
            time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """False where another process has the lock."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has none
        return True
    return True


def writable_folder(name: str) -> Path:
    """The folder, made where it is missing.

    Raises:
        UserError: nothing can be written there.
    """
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--output_dir {name} cannot be written: {error.strerror}") from error
    return folder
