"""Arrays prepared once and kept in one file: written whole or not at all, checked when opened.

The file is a 4096-byte header, then the bytes of a uint8 array, so that it can be memory-mapped,
then the numbers of the rows that were left out, int64, if any. The header is a JSON object padded
with spaces: the file's format, the array's shape and number of rows, what it was made from, and
the sha256 of all that follows. `head -c 4096 FILE` shows it.

A file of up to 512 MiB is checked against its sha256 at every start, in a fraction of a second. Of
a larger one `FILE.checked` says in which state (size, times, inode) it passed the check; it is
checked again when found in another.
"""

import contextlib
import functools
import glob
import hashlib
import json
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from factorvae.errors import UserError, printable
from factorvae.progress import track

FORMAT = "factorvae table 2"
HEADER_BYTES = 4096
ALWAYS_CHECKED_BYTES = 1 << 29
READ_AT_ONCE = 1 << 24
ABANDONED_AFTER_SECONDS = 3600
LONGEST_NAME_BYTES = 120  # of a source, in the name of its cache

MakeBlocks = Callable[[], Iterable[np.ndarray]]


def cached_array(
    path: Path,
    shape: tuple[int | None, ...],
    made_from: dict[str, object],
    make_blocks: MakeBlocks,
    left_out: list[int] | None = None,
) -> np.ndarray:
    """The uint8 array kept at `path`, memory-mapped and read-only; made first where need be.

    shape: the whole array's; its length is None where only make_blocks knows it. made_from: what
    the content depends on, as a JSON object. make_blocks: called only if the file is missing,
    damaged or made from something else; its blocks, uint8 [n, *shape[1:]], follow one another
    along the first axis. left_out: an empty list, if make_blocks may leave out rows of the shape's;
    it appends their numbers to the list, and later calls put them there again.

    Processes that start together each write a file of their own, and the last one renamed stays:
    their contents are the same. Raises UserError where the file cannot be written, or `path` is
    something other than a file.
    """
    recipe = {"format": FORMAT, "shape": shape, "made_from": made_from}
    recipe = json.loads(json.dumps(recipe))  # as the header will say it
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file: expected a cache there, or nothing; move it away")
    fault = _fault(path, recipe, left_out is not None) if path.exists() else "is not there yet"
    if fault:
        if path.exists():
            print(printable(f"{path} {fault}: making it again"), file=sys.stderr, flush=True)
        _write(path, recipe, make_blocks, [] if left_out is None else left_out)
    with path.open("rb") as file:
        rows = _read_header(file)["rows"]
    table = np.memmap(path, np.uint8, mode="r", offset=HEADER_BYTES, shape=(rows, *shape[1:]))
    if left_out is not None:
        left_out[:] = np.fromfile(path, "<i8", offset=HEADER_BYTES + table.nbytes).tolist()
    return np.asarray(table)  # a plain view: memmap's own indexing is slow


def cache_name(source: Path, tag: str) -> str:
    """What the cache of a file or folder that may lie anywhere is called; `source` is absolute."""
    where = hashlib.sha256(str(source).encode()).hexdigest()[:8]  # sources may share a name
    # A name as long as a file system takes leaves no room for more.
    fits = len(os.fsencode(source.name)) <= LONGEST_NAME_BYTES
    return f"{source.name if fits else source.name[:20]}_{where}_{tag}.table"


def _read_header(file: BinaryIO) -> dict[str, object]:
    """ValueError where there is none."""
    try:
        header = json.loads(file.read(HEADER_BYTES))
    except RecursionError as error:
        raise ValueError("the header is nested without end") from error
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    return header


def _fault(path: Path, recipe: dict[str, object], may_lack_rows: bool) -> str | None:
    """Why the file cannot be used, in a few words; None if it is sound."""
    with path.open("rb") as file:
        try:
            header = _read_header(file)
        except ValueError:  # also what bytes that are no text raise
            return "is damaged (unreadable header)"
        if header | recipe != header:
            return "was made from something else"
        if [type(header.get(key)) for key in ("rows", "left_out", "sha256")] != [int, int, str]:
            return "is damaged (incomplete header)"
        if min(header["rows"], header["left_out"]) < 0:
            return "is damaged (less than no rows)"
        if header["left_out"] and not may_lack_rows:
            return f"lacks {header['left_out']} of its rows"
        row_bytes = math.prod(recipe["shape"][1:])
        size = HEADER_BYTES + header["rows"] * row_bytes + 8 * header["left_out"]
        status = os.fstat(file.fileno())
        if status.st_size != size:
            return "is damaged (wrong size)"
        if size > ALWAYS_CHECKED_BYTES and _passed_before(path, status, header["sha256"]):
            return None
        if _digest(file, size, f"checking {path}") != header["sha256"]:
            return "is damaged (wrong checksum)"
    _note_passed(path, header["sha256"])
    return None


def _digest(file: BinaryIO, size: int, what: str) -> str:
    """sha256 of all after the header; tells its progress if that takes long."""
    chunks = iter(functools.partial(file.read, READ_AT_ONCE), b"")
    if size > ALWAYS_CHECKED_BYTES:
        chunks = track(chunks, size - HEADER_BYTES, what, " bytes")
    checksum = hashlib.sha256()
    for chunk in chunks:
        checksum.update(chunk)
    return checksum.hexdigest()


def _state(status: os.stat_result, checksum: str) -> dict[str, object]:
    """What changes when a file is written to, replaced or moved to another disk."""
    names = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
    return {name: getattr(status, name) for name in names} | {"sha256": checksum}


def _passed_before(path: Path, status: os.stat_result, checksum: str) -> bool:
    record = _record_of(path)
    try:
        return json.loads(record.read_bytes()) == _state(status, checksum)
    except (OSError, ValueError, RecursionError):  # there is none, or it was cut short
        return False


def _note_passed(path: Path, checksum: str) -> None:
    """Where this cannot be written the next start checks the file again, that is all."""
    status = path.stat()
    if status.st_size > ALWAYS_CHECKED_BYTES:
        with contextlib.suppress(OSError):
            _record_of(path).write_text(json.dumps(_state(status, checksum)))


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.checked")


def _write(
    path: Path, recipe: dict[str, object], make_blocks: MakeBlocks, left_out: list[int]
) -> None:
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    checksum, rows = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with partial.open("wb") as file, contextlib.closing(_passed_on(make_blocks())) as blocks:
            file.seek(HEADER_BYTES)
            for block in blocks:
                block = np.ascontiguousarray(block)
                checksum.update(block)
                file.write(block)
                rows += len(block)
            expected = recipe["shape"][0]
            if expected is not None and rows + len(left_out) != expected:
                raise ValueError(f"{rows} rows were made for a table of {recipe['shape']}")
            trailer = np.array(left_out, "<i8").tobytes()
            checksum.update(trailer)
            file.write(trailer)
            file.seek(0)
            made = {"rows": rows, "left_out": len(left_out), "sha256": checksum.hexdigest()}
            header = json.dumps(recipe | made).encode()
            if len(header) > HEADER_BYTES:
                raise ValueError(f"the header of {path} would take {len(header)} bytes")
            file.write(header.ljust(HEADER_BYTES))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if partial.exists():
            partial.unlink()
    _note_passed(path, checksum.hexdigest())


def _passed_on(blocks: Iterable[np.ndarray]) -> Generator[np.ndarray, None, None]:
    """The blocks; closing this closes what makes them, at once and in this thread."""
    yield from blocks


def _remove_abandoned(path: Path) -> None:
    """Delete what killed processes left: partial files that nobody has written to for an hour."""
    for partial in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        if time.time() - partial.stat().st_mtime > ABANDONED_AFTER_SECONDS:
            partial.unlink(missing_ok=True)
