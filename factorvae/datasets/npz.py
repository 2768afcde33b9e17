"""Arrays of an npz file, read a few rows at a time and never unpickled."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Collection

import numpy as np

# What zipfile, zlib and numpy raise for a file that is cut, damaged or something else.
UNREADABLE = (
    *(OSError, EOFError, KeyError, ValueError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)


def open_array(
    archive: zipfile.ZipFile, name: str, shapes: Collection[tuple[int, ...]], kinds: str
) -> tuple[zipfile.ZipExtFile, np.dtype, tuple[int, ...]]:
    """A member npy opened at its first value, its type and shape.

    ValueError for a header that cannot be read, and unless the shape is one of `shapes` and the
    type's kind one of `kinds`.
    """
    file, dtype, shape, fortran_order = open_member(archive, name)
    if shape not in shapes or fortran_order or dtype.kind not in kinds:
        file.close()
        raise ValueError(f"{name} is {dtype} {shape}")
    return file, dtype, shape


def open_member(
    archive: zipfile.ZipFile, name: str
) -> tuple[zipfile.ZipExtFile, np.dtype, tuple[int, ...], bool]:
    """A member npy opened at its first value: its type, shape, and whether in Fortran's order.

    ValueError for a header that cannot be read.
    """
    file = archive.open(f"{name}.npy")
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        else:
            header = np.lib.format.read_array_header_2_0(file)
    except Exception as error:  # numpy raises nearly anything at damaged headers
        file.close()
        told = " ".join(str(error).split()) or "it ends early"
        raise ValueError(f"the header of {name}: {told}") from error
    shape, fortran_order, dtype = header
    return file, dtype, shape, fortran_order


def read_array(archive: zipfile.ZipFile, name: str, kinds: str, dimensions: int) -> np.ndarray:
    """A whole member npy, in whichever order it is stored.

    ValueError unless the type's kind is one of `kinds` and the number of dimensions is as given.
    """
    file, dtype, shape, fortran_order = open_member(archive, name)
    with file:
        if dtype.kind not in kinds or len(shape) != dimensions:
            raise ValueError(f"{name} is {dtype} {shape}")
        values = read_rows(file, 1, dtype, shape)
        expect_end(file, name)
    return values.ravel().reshape(shape, order="F" if fortran_order else "C")


def read_rows(
    file: zipfile.ZipExtFile, n: int, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    """The next n rows of the given shape."""
    data = file.read(n * int(np.prod(shape)) * dtype.itemsize)
    return np.frombuffer(data, dtype).reshape(n, *shape)  # ValueError when cut short


def expect_end(file: zipfile.ZipExtFile, name: str) -> None:
    """Reading past the last value also makes zipfile compare the member's checksum."""
    if file.read(1):
        raise ValueError(f"{name} goes on after its last value")
