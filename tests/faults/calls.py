"""Something happens inside the n-th open, write, fsync, replace, unlink or mkdir below a folder.

For children only: the functions of this process are replaced for good. Writes are those of Python's
files; what C code writes to a file's descriptor is not seen (a limit of the file's size is, see
`disk`).
"""

import builtins
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir")
# Called with the call's name, the path, and whether the call has been made already.
Act = Callable[[str, str, bool], None]


class Watch:
    """Calls `act` before and after (in a write: in the middle of) each call below `folder`."""

    def __init__(self, folder: Path, act: Act) -> None:
        self.folder, self.act = f"{folder}{os.sep}", act
        self.paths: dict[int, str] = {}  # of descriptors
        # tarfile has kept the real one for itself
        builtins.open = io.open = tarfile.bltn_open = self._opening(io.open)
        os.fsync = self._fsync(os.fsync)
        os.replace = self._on_last("replace", os.replace)
        os.rename = self._on_last("replace", os.rename)
        os.unlink = self._on_last("unlink", os.unlink)
        os.mkdir = self._on_last("mkdir", os.mkdir)

    def _is_below(self, path: object) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        path = os.path.abspath(path)
        return path.startswith(self.folder) or f"{path}{os.sep}" == self.folder

    def _opening(self, real: Callable) -> Callable:
        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not (set(mode) & set("wax+")) or not self._is_below(file):
                return real(file, mode, *args, **options)
            path = os.path.abspath(file)
            self.act("open", path, False)
            stream = real(file, mode, *args, **options)
            self.act("open", path, True)
            self.paths[stream.fileno()] = path
            return Written(stream, path, self.act)

        return opened

    def _fsync(self, real: Callable) -> Callable:
        def fsync(descriptor: int) -> None:
            path = self.paths.get(descriptor)
            if path is None:
                real(descriptor)
                return
            self.act("fsync", path, False)
            real(descriptor)
            self.act("fsync", path, True)

        return fsync

    def _on_last(self, name: str, real: Callable) -> Callable:
        """A function whose last path is what it is about."""

        def call(*paths: Any, **options: Any) -> None:
            if not self._is_below(paths[-1] if name == "replace" else paths[0]):
                real(*paths, **options)
                return
            path = os.path.abspath(paths[-1] if name == "replace" else paths[0])
            self.act(name, path, False)
            real(*paths, **options)
            self.act(name, path, True)

        return call


class Written:
    """A file whose writes are in two halves, with `act` before them and between."""

    def __init__(self, stream: Any, path: str, act: Act) -> None:
        self._stream, self._path, self._act = stream, path, act

    def write(self, data: Any) -> int:
        if not isinstance(data, str):
            data = memoryview(data).cast("B") if memoryview(data).nbytes else b""
        half = len(data) // 2
        self._act("write", self._path, False)
        self._stream.write(data[:half])
        self._stream.flush()
        self._act("write", self._path, True)
        self._stream.write(data[half:])
        return len(data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def at_call(folder: Path, call: str, number: int, act: Callable[[], None]) -> None:
    """`act` at the number-th place (before, in, or after) of such a call, from 0."""
    count = [0]

    def look(name: str, path: str, made: bool) -> None:
        if name == call:
            count[0] += 1
            if count[0] == number + 1:
                act()

    Watch(folder, look)


def recorded(folder: Path, known: list[tuple[str, str]]) -> None:
    """Append every call below the folder, with its path from there, to `known`."""

    def look(name: str, path: str, made: bool) -> None:
        if not made:
            known.append((name, os.path.relpath(path, folder)))

    Watch(folder, look)
