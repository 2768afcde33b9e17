"""Arrays prepared once and kept in one file: written whole or not at all, checked when opened.

The file is a 4096-byte header, then the bytes of a uint8 array, so that it can be memory-mapped.
The header is a JSON object padded with spaces: the file's format, the array's shape, what it was
made from, and its sha256. `head -c 4096 FILE` shows it.
"""

import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from factorvae.errors import UserError

FORMAT = "factorvae table 1"
HEADER_BYTES = 4096
ABANDONED_AFTER_SECONDS = 3600

MakeBlocks = Callable[[], Iterable[np.ndarray]]


def cached_array(
    path: Path, shape: tuple[int, ...], made_from: dict[str, object], make_blocks: MakeBlocks
) -> np.ndarray:
    """The uint8 array kept at `path`, memory-mapped and read-only; made first where need be.

    shape: the whole array's. made_from: what the content depends on, as a JSON object.
    make_blocks: called only if the file is missing, damaged or made from something else; its
    blocks, uint8 [n, *shape[1:]], follow one another along the first axis.

    Processes that start together each write a file of their own, and the last one renamed stays:
    their contents are the same. Raises UserError where the file cannot be written.
    """
    recipe = {"format": FORMAT, "shape": shape, "made_from": made_from}
    recipe = json.loads(json.dumps(recipe))  # as the header will say it
    fault = _fault(path, recipe) if path.exists() else "is not there yet"
    if fault:
        if path.exists():
            print(f"{path} {fault}: making it again", file=sys.stderr, flush=True)
        _write(path, recipe, make_blocks)
    table = np.memmap(path, np.uint8, mode="r", offset=HEADER_BYTES, shape=shape)
    return np.asarray(table)  # a plain view: memmap's own indexing is slow


def _fault(path: Path, recipe: dict[str, object]) -> str | None:
    """Why the file cannot be used, in a few words; None if it is sound."""
    with path.open("rb") as file:
        try:
            header = json.loads(file.read(HEADER_BYTES))
        except ValueError:  # also what bytes that are no text raise
            return "is damaged (unreadable header)"
        if not isinstance(header, dict) or header | recipe != header:
            return "was made from something else"
        if os.fstat(file.fileno()).st_size != HEADER_BYTES + np.prod(recipe["shape"]):
            return "is damaged (wrong size)"
        if hashlib.file_digest(file, "sha256").hexdigest() != header.get("sha256"):
            return "is damaged (wrong checksum)"
    return None


def _write(path: Path, recipe: dict[str, object], make_blocks: MakeBlocks) -> None:
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    checksum, length = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with partial.open("wb") as file:
            file.seek(HEADER_BYTES)
            for block in make_blocks():
                block = np.ascontiguousarray(block)
                checksum.update(block)
                file.write(block)
                length += len(block)
            if length != recipe["shape"][0]:
                raise ValueError(f"{length} rows were made for a table of {recipe['shape']}")
            file.seek(0)
            header = json.dumps(recipe | {"sha256": checksum.hexdigest()})
            file.write(header.encode().ljust(HEADER_BYTES))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if partial.exists():
            partial.unlink()


def _remove_abandoned(path: Path) -> None:
    """Delete what killed processes left: partial files that nobody has written to for an hour."""
    for partial in path.parent.glob(f"{path.name}.*.partial"):
        if time.time() - partial.stat().st_mtime > ABANDONED_AFTER_SECONDS:
            partial.unlink(missing_ok=True)
