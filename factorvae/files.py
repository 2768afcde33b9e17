"""The files that the project writes: what each is called, and how one is written whole."""

import os
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
