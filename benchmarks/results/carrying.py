"""Results in files of at most 16 MiB, for machines that are lent for minutes."""

import argparse
import io
import zipfile
from pathlib import Path

from benchmarks.results.running import COMMITS_NAME
from benchmarks.results.sweeps import all_sweeps, length_of, runs_of
from factorvae.checkpoint import export_weights, load_checkpoint
from factorvae.files import CHECKPOINT_NAME, whole_file

PART_BYTES = 16 << 20


def carry_to(folder: Path, options: argparse.Namespace) -> None:
    """Put what was made into `folder`, in files of at most PART_BYTES."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("finished-*.zip"), *folder.glob("*.ckpt.*")]:
        old.unlink()
    archive, number = None, 0
    base = options.output_dir
    runs = [
        (run, length_of(sweep))
        for profile, sweep in all_sweeps()
        for run in runs_of(sweep, base / profile / sweep.name)
    ]
    for run, length in runs:
        path = run / CHECKPOINT_NAME
        if not path.exists():
            continue
        checkpoint = load_checkpoint(path)
        if checkpoint["step"] < length:
            parts = [*run.iterdir(), *run.parent.glob(COMMITS_NAME)]
            bundle = zipped({p.relative_to(base): p.read_bytes() for p in parts})
            name = "__".join(run.relative_to(base).parts)
            for part, start in enumerate(range(0, len(bundle), PART_BYTES)):
                (folder / f"{name}.ckpt.{part}").write_bytes(bundle[start : start + PART_BYTES])
            continue
        parts = [p for p in (*run.iterdir(), *run.parent.glob(COMMITS_NAME)) if p != path]
        files = {p.relative_to(base): p.read_bytes() for p in parts}
        files[path.relative_to(base)] = export_weights(checkpoint)
        bundle = zipped(files)
        if archive is None or archive.stat().st_size + len(bundle) > PART_BYTES:
            archive = folder / f"finished-{number}.zip"
            number += 1
        with zipfile.ZipFile(archive, "a") as all_of_them:
            there = {*all_of_them.namelist()}  # a sweep's commits, with an earlier run of it
            for name, data in files.items():
                if str(name) not in there:
                    all_of_them.writestr(str(name), data)


def carry_from(folder: Path, options: argparse.Namespace) -> None:
    """Take from `folder` the runs that OUTPUT_DIR lacks."""
    bundles = {path.name: path.read_bytes() for path in sorted(folder.glob("finished-*.zip"))}
    for path in sorted(folder.glob("*.ckpt.0")):
        stem = path.name.removesuffix(".0")
        parts = sorted(folder.glob(f"{stem}.*"), key=lambda part: int(part.suffix[1:]))
        bundles[stem] = b"".join(part.read_bytes() for part in parts)
    for bundle in bundles.values():
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            for name in archive.namelist():
                target = options.output_dir / name
                if not target.resolve().is_relative_to(options.output_dir.resolve()):
                    raise SystemExit(f"{folder}: {name} leads out of the folder")
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with whole_file(target) as file:
                        file.write(archive.read(name))


def zipped(files: dict[Path, bytes]) -> bytes:
    """The files as a zip; what is hidden or temporary stays out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            if not name.name.startswith("."):
                archive.writestr(str(name), data)
    return stream.getvalue()
