"""The files that the project writes: what each is called, and how one is written whole."""

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from factorvae.errors import UserError

# In the folder of a run:
CHECKPOINT_NAME = "ckpt.pt"
CONFIG_NAME = "config.json"
STATS_NAME = "stats.csv"
LOG_NAME = "log.txt"
METRICS_NAME = "metrics.json"  # written by evaluate.py
# In the folder of a sweep, beside its runs' folders:
SWEEP_NAME = "study.json"


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
