"""Image files by name, wherever they lie: in a folder, or as they are in a tar or a zip.

A source has `names`, in a fixed order that has nothing to do with the directory's; `made_from`,
which changes when a file is added, removed or written to; `absent()`, the names that are none of an
image there; `read(name)`; and `place(name)`, which is how a message calls one. Reading archives is
safe from several threads.
"""

import functools
import gzip
import hashlib
import os
import shutil
import stat
import sys
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from factorvae.datasets.npz import UNREADABLE
from factorvae.errors import UserError, printable

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Of an archive, unpacked: what is larger is a bomb or a mistake.
LARGEST_MEMBER_BYTES = 1 << 28
LARGEST_ARCHIVE_BYTES = 1 << 33


class ImageSource(Protocol):
    """Encoded images by name; see the module."""

    made_from: dict[str, object]

    @property
    def names(self) -> Sequence[str]: ...
    def absent(self) -> set[str]: ...
    def read(self, name: str) -> bytes: ...
    def place(self, name: str) -> str: ...


def fingerprint(*paths: Path) -> dict[str, object]:
    """What a cache made from these files remembers of them."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    total = sum(size for _, size, _ in files)
    return {"files": len(files), "bytes": total, "listing_sha256": _digest(files)}


class FolderImages:
    """The images below a folder, however deep, by their path from there, sorted.

    names: these and no others, if given. Hidden files and folders and files of another type are
    passed over. UserError where the folder is missing or holds no image.
    """

    def __init__(self, root: Path, names: Sequence[str] | None = None) -> None:
        if not root.is_dir():
            raise UserError(f"{root} is not there, or is no folder: expected a folder of images")
        files = sorted(_files_below(root, ""))
        if not files:
            raise UserError(f"{root} holds no images: expected {', '.join(SUFFIXES)} at any depth")
        self.root = root
        self.listed = {name for name, _, _ in files}
        self.names = [name for name, _, _ in files] if names is None else names
        self.made_from: dict[str, object] = {
            "files": len(files),
            "bytes": sum(size for _, size, _ in files),
            "listing_sha256": _digest(files),
            "names_sha256": _digest(self.names),
        }

    def absent(self) -> set[str]:
        return set(self.names) - self.listed

    def read(self, name: str) -> bytes:
        path = self.root / name
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would never end
            raise ValueError("it is no regular file")
        _check_size(path, path.name, status.st_size)
        return path.read_bytes()

    def place(self, name: str) -> str:
        return str(self.root / name)


def _digest(items: Sequence[object]) -> str:
    return hashlib.sha256("\n".join(map(repr, items)).encode()).hexdigest()


def _files_below(
    folder: str | Path, prefix: str, above: tuple[tuple[int, int], ...] = ()
) -> Iterator[tuple[str, int, int]]:
    """(path from the root, bytes, time of change) of every image; `above` are the folders above."""
    try:
        status = os.stat(folder)
        here = status.st_dev, status.st_ino
        if here in above:
            raise UserError(f"{folder} is a link to a folder above it: remove it")
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from _files_below(entry.path, f"{prefix}{entry.name}/", (*above, here))
                elif entry.name.lower().endswith(SUFFIXES):
                    # a link that leads nowhere is listed, and is a bad image when it is read
                    status = entry.stat(follow_symlinks=os.path.exists(entry.path))
                    yield f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns
    except OSError as error:
        raise UserError(f"cannot list {error.filename or folder}: {error.strerror}") from error


class TarImages:
    """Members of an uncompressed tar, read in place; listed only when their names are needed.

    wanted: which names are images of the set. UserError, when listing, for an archive that cannot
    be read or holds none of them, and for a member with a path out of it.
    """

    def __init__(self, path: Path, wanted: Callable[[str], bool]) -> None:
        self.path, self.wanted = path, wanted
        self.made_from = fingerprint(path)

    @functools.cached_property
    def members(self) -> dict[str, tuple[int, int]]:
        """Where each one's bytes begin, and how many they are."""
        try:
            with tarfile.open(self.path, "r:") as archive:
                members = {
                    member.name: (member.offset_data, member.size)
                    for member in _tar_members(archive, self.path)
                    if self.wanted(member.name)
                }
                end = archive.offset
            with self.path.open("rb") as file:
                file.seek(end)
                if file.read(tarfile.BLOCKSIZE).strip(
                    b"\0"
                ):  # where tarfile ends as if it were all
                    raise tarfile.HeaderError(f"damaged header at byte {end:,}")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UserError(f"{self.path} is no tar archive, or is cut short: {error}") from error
        if not members:
            raise UserError(f"{self.path} holds no images of the set")
        return members

    @property
    def names(self) -> list[str]:
        return sorted(self.members)

    def absent(self) -> set[str]:
        return set()  # the names are those that were found

    def read(self, name: str) -> bytes:
        offset, size = self.members[name]
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def place(self, name: str) -> str:
        return f"{self.path}: {name}"


def _tar_members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """A tar's regular members; UserError where it is damaged or a path leads out of it."""
    try:
        for member in archive:
            tarfile.data_filter(member, ".")
            if member.isreg():
                yield member
    except tarfile.FilterError as error:
        raise UserError(f"{path}: {error}: expected paths inside the archive only") from error


def unpack(path: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """The wanted members of a gzipped tar, put side by side into `folder`, all of them or none.

    UserError for an archive that cannot be read or belies its checksum, a path out of it, and
    members of absurd size.
    """
    print(printable(f"unpacking {path} into {folder}"), file=sys.stderr, flush=True)
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.partial")
    total = 0
    try:
        partial.mkdir(parents=True)
        # Not "r|gz", which never compares the checksum at the end.
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in _tar_members(archive, path):
                if not wanted(member.name):
                    continue
                total += member.size
                _check_size(path, member.name, member.size, total)
                flat = member.replace(name=PurePosixPath(member.name).name)
                archive.extract(flat, partial, filter="data")
            _read_to_end(stream, path)
        if not folder.exists():  # another process may have been faster
            partial.rename(folder)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is no tar.gz, or is cut short or damaged: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read_to_end(stream: gzip.GzipFile, path: Path) -> None:
    """What follows a tar's last member is padding; at its end gzip compares its checksum."""
    while stream.read(1 << 20):
        _check_size(path, "its content", 0, stream.tell())


def _check_size(path: Path, name: str, size: int, total: int = 0) -> None:
    if size > LARGEST_MEMBER_BYTES or total > LARGEST_ARCHIVE_BYTES:
        raise UserError(
            f"{path}: {name} would be {size:,} bytes unpacked: expected {LARGEST_MEMBER_BYTES:,} "
            f"at most, and {LARGEST_ARCHIVE_BYTES:,} of all together"
        )


class ZipImages:
    """Members of a zip, read in place; opened only when one is needed.

    A name that is no member's stands for the member of that file name in whichever folder. Reading
    raises UserError for an archive that cannot be read and a member of absurd size.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self.names = path, names
        self.made_from = fingerprint(path) | {"names_sha256": _digest(names)}

    @functools.cached_property
    def archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except UNREADABLE as error:
            raise UserError(
                f"{self.path} is no zip, or is cut short or damaged: {error}"
            ) from error

    @functools.cached_property
    def members(self) -> dict[str, str]:
        """The member of each name that is there."""
        there = self.archive.NameToInfo
        anywhere = {PurePosixPath(member).name: member for member in there}
        found = ((name, anywhere.get(PurePosixPath(name).name)) for name in self.names)
        return {
            name: name if name in there else member
            for name, member in found
            if name in there or member is not None
        }

    def absent(self) -> set[str]:
        return set(self.names) - self.members.keys()

    def read(self, name: str) -> bytes:
        member = self.members[name]
        _check_size(self.path, name, self.archive.getinfo(member).file_size)
        return self.archive.read(member)

    def place(self, name: str) -> str:
        return f"{self.path}: {name}"
