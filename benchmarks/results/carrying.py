"""Results in files of at most 16 MiB, for machines that are lent for minutes."""

import io
import re
import zipfile
from pathlib import Path

from benchmarks.results.running import COMMITS_NAME
from benchmarks.results.sweeps import all_sweeps, length_of, runs_of
from factorvae.checkpoint import export_weights, load_checkpoint
from factorvae.errors import UserError
from factorvae.files import CHECKPOINT_NAME, whole_file, write_whole

PART_BYTES = 16 << 20


def carry_to(folder: Path, output_dir: Path) -> None:
    """Put what was made into `folder`, in files of at most PART_BYTES.

    Each is written whole, and those of an earlier call that are no more go afterwards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = set()

    def put(name: str, data: bytes) -> None:
        write_whole(folder / name, data)
        written.add(name)

    number = 0
    together: dict[Path, bytes] = {}  # of the next archive of finished runs
    size = 0
    runs = [
        (run, length_of(sweep))
        for profile, sweep in all_sweeps()
        for run in runs_of(sweep, output_dir / profile / sweep.name)
    ]
    for run, length in runs:
        path = run / CHECKPOINT_NAME
        if not path.exists():
            continue
        checkpoint = load_checkpoint(path)
        parts = [*run.iterdir(), *run.parent.glob(COMMITS_NAME)]
        files = {part.relative_to(output_dir): part.read_bytes() for part in parts if part != path}
        if checkpoint["step"] < length:
            bundle = zipped({**files, path.relative_to(output_dir): path.read_bytes()})
            name = "__".join(run.relative_to(output_dir).parts)
            for part, start in enumerate(range(0, len(bundle), PART_BYTES)):
                put(f"{name}.ckpt.{part}", bundle[start : start + PART_BYTES])
            continue
        files[path.relative_to(output_dir)] = export_weights(checkpoint)
        added = len(zipped(files))
        if size + added > PART_BYTES and together:
            put(f"finished-{number}.zip", zipped(together))
            together, size, number = {}, 0, number + 1
        together |= files
        size += added
    if together:
        put(f"finished-{number}.zip", zipped(together))
    for name in carried(folder) - written:
        (folder / name).unlink()


def carry_from(folder: Path, output_dir: Path) -> None:
    """Take from `folder` the runs that OUTPUT_DIR lacks; UserError for a damaged file."""
    bundles: dict[str, bytes] = {}
    for name in sorted(carried(folder), key=lambda name: (len(name), name)):  # part 10 after 9
        bundle = name if name.endswith(".zip") else name.rpartition(".")[0]
        bundles[bundle] = bundles.get(bundle, b"") + (folder / name).read_bytes()
    for name, data in bundles.items():
        try:
            _take(io.BytesIO(data), output_dir)
        except (zipfile.BadZipFile, UserError) as error:
            raise UserError(f"{folder / name} is damaged: {error}") from error


def _take(bundle: io.BytesIO, output_dir: Path) -> None:
    """Unpack what is not there; UserError for a name that leads out of the folder."""
    with zipfile.ZipFile(bundle) as archive:
        for name in archive.namelist():
            target = output_dir / name
            if not target.resolve().is_relative_to(output_dir.resolve()):
                raise UserError(f"{name} leads out of the folder")
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(target) as file:
                    file.write(archive.read(name))


def carried(folder: Path) -> set[str]:
    """The names of the files there that `carry_to` wrote: PROFILE__SWEEP__RUN.ckpt.N, and zips."""
    own = r"finished-\d+\.zip|[^.].*__.+__.+\.ckpt\.\d+"
    return {path.name for path in folder.iterdir() if re.fullmatch(own, path.name)}


def zipped(files: dict[Path, bytes]) -> bytes:
    """The files as a zip; what is hidden or temporary stays out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            if not name.name.startswith("."):
                archive.writestr(str(name), data)
    return stream.getvalue()
