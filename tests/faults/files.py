"""Damaged and hostile files: each ends in one clear line and exit code 2, or in the right result.

A case `files:FORMAT:N` is the N-th mutation of a sound tiny file of that format, read in a child.
What is right: where the format has checksums, what the sound file gives, to the bit; where it has
none (JPEG, MATLAB, plain matrices, lists, logs), anything of the right form. A case
`files:crafted:NAME` is a file that somebody made on purpose.
"""

import gzip
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factorvae.checkpoint import load_checkpoint
from factorvae.config import TrainConfig
from factorvae.datasets import load_dataset
from factorvae.files import CHECKPOINT_NAME, METRICS_NAME, STATS_NAME, SWEEP_NAME
from factorvae.run_log import RunLog, columns, log_until, read_log
from factorvae.saved_scores import read_scores
from factorvae.training.sweep import runs_of
from factorvae.training.sweep_folder import check_same_sweep, read_sweep, write_sweep
from tests.faults.child import BATCH, in_batches, in_this_process, quiet
from tests.faults.crafted import CRAFTED
from tests.faults.tiny import data_dir, fresh, once, run_of
from tests.helpers import (
    SMALL_CARS3D,
    SMALL_MPI3D,
    SMALL_SHAPES3D,
    SMALL_SMALLNORB,
    chair_files,
    encoded,
    pictures,
    same_state,
    write_cars3d,
    write_celeba,
    write_chairs,
    write_mpi3d,
    write_shapes3d,
    write_smallnorb,
    write_tree,
)

MEMORY = 1 << 28  # beyond what Python and torch take


@dataclass(frozen=True)
class Format:
    """A format that is read.

    make: writes sound files into a folder. target: which of them are damaged, a glob. read: gives
    what they hold; it may write below the folder. right: whether, of a damaged file, what was read
    (first) is right beside what the sound one gives (second).
    """

    make: Callable[[Path], object]
    target: str
    read: Callable[[Path], object]
    right: Callable[[object, object], bool]


def cases(seed: int) -> Iterator[str]:
    """The crafted ones, then mutations of each format in turn, 2,000 of each."""
    yield from (f"files:crafted:{name}" for name in CRAFTED)
    for number in range(2000):
        yield from (f"files:{name}:{seed * 10_000 + number}" for name in FORMATS)


def run(cases: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Each case and what breaks the promise, in one line, if anything.

    A crafted file has a child of its own: some are met by whole scripts, which change how memory
    is kept, and the next case would be short of it.
    """
    for crafted, some in itertools.groupby(cases, lambda case: ":crafted:" in case):
        yield from in_batches(some, prepare, run_here, MEMORY, at_once=1 if crafted else BATCH)


def prepare(cases: Sequence[str]) -> None:
    """Make the sound files that these cases damage, and read them."""
    for name in dict.fromkeys(case.split(":")[1] for case in cases):
        if name != "crafted" and name not in _EXPECTED:
            sound = once(f"sound-{name}", FORMATS[name].make)
            folder = fresh(f"sound-{name}")
            shutil.copytree(sound, folder, dirs_exist_ok=True)
            with quiet():
                _EXPECTED[name] = FORMATS[name].read(folder)
    run_of(4)


def run_here(case: str) -> str | None:
    """What breaks the promise in one case that `prepare` knows, in this process."""
    _, name, number = case.split(":")
    if name != "crafted":
        return in_this_process(lambda: _read_mutated(FORMATS[name], name, int(number))).fault()
    crafted, folder = CRAFTED[number], fresh("crafted")
    crafted.make(folder)
    ended = in_this_process(lambda: crafted.read(folder))
    outside = sorted(str(path) for path in folder.parent.glob("*escaped*"))
    return f"something got out: {outside[0]}" if outside else ended.fault(crafted.codes)


def _read_mutated(format: Format, name: str, number: int) -> None:
    rng = np.random.default_rng([number, *name.encode()])
    folder = fresh("mutated")
    shutil.copytree(once(f"sound-{name}", format.make), folder, dirs_exist_ok=True)
    victims = sorted(folder.glob(format.target))
    victim = victims[rng.integers(len(victims))]
    victim.write_bytes(mutated(victim.read_bytes(), rng))
    if not format.right(format.read(folder), _EXPECTED[name]):
        raise AssertionError(f"{victim.name} was read as something else, silently")


_EXPECTED: dict[str, object] = {}  # what the sound files give


# Mutations

TOKENS = b'nan|inf|-1|1e999|99999999999999999999|"|[|{|,|\n|\0|\xff|%s|../|None|true| |0x'.split(
    b"|"
)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The data after one to three small or large changes."""
    for _ in range(rng.integers(1, 4)):
        data = MUTATIONS[rng.integers(len(MUTATIONS))](data, rng)
    return data


def _place(data: bytes, rng: np.random.Generator) -> int:
    """Anywhere, and more often near an end, where headers and directories are."""
    nearest = min(len(data), 600)
    where = rng.integers(4)
    if where == 0:
        return int(rng.integers(nearest + 1))
    if where == 1:
        return len(data) - int(rng.integers(nearest + 1))
    return int(rng.integers(len(data) + 1))


def _length(rng: np.random.Generator) -> int:
    """Short runs are as likely as long ones."""
    return int(2 ** rng.uniform(0, 12))


def _put(data: bytes, at: int, new: bytes, over: int) -> bytes:
    return data[:at] + new + data[at + over :]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return _put(data, at, bytes(byte ^ 1 << rng.integers(8) for byte in data[at : at + 1]), 1)


def _overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    n = _length(rng)
    return _put(data, _place(data, rng), rng.bytes(n), n)


def _fill(data: bytes, rng: np.random.Generator) -> bytes:
    n = _length(rng)
    return _put(data, _place(data, rng), bytes([rng.choice([0, 255, 127])]) * n, n)


def _extreme(data: bytes, rng: np.random.Generator) -> bytes:
    """A whole number of a header becomes 0, the largest, the smallest or a huge one."""
    width = int(rng.choice([1, 2, 4, 8]))
    bits = 8 * width
    values = (0, 1, 2 ** (bits - 1) - 1, 2**bits - 1, 2 ** (bits - 2))
    value = values[rng.integers(len(values))]
    order = "little" if rng.integers(2) else "big"
    return _put(data, _place(data, rng), value.to_bytes(width, order), width)


def _token(data: bytes, rng: np.random.Generator) -> bytes:
    token = TOKENS[rng.integers(len(TOKENS))] * int(rng.choice([1, 1, 1, 5000]))
    return _put(data, _place(data, rng), token, int(rng.integers(2)) * len(token))


def _delete(data: bytes, rng: np.random.Generator) -> bytes:
    return _put(data, _place(data, rng), b"", _length(rng))


def _double(data: bytes, rng: np.random.Generator) -> bytes:
    at, n = _place(data, rng), _length(rng)
    return _put(data, at, data[at : at + n] * 2, n)


def _swap(data: bytes, rng: np.random.Generator) -> bytes:
    n = _length(rng)
    first, second = sorted(_place(data, rng) for _ in range(2))
    if second < first + n:
        return data
    one, other = data[first : first + n], data[second : second + n]
    return data[:first] + other + data[first + n : second] + one + data[second + n :]


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: _place(data, rng)]


def _append(data: bytes, rng: np.random.Generator) -> bytes:
    return data + rng.bytes(_length(rng))


MUTATIONS = (
    *(_flip, _flip, _flip, _overwrite, _fill, _extreme, _extreme, _token),
    *(_delete, _double, _swap, _cut, _append),
)


# Formats


def _everything(name: str, **options: object) -> Callable[[Path], dict[str, object]]:
    """Reads a dataset of that name below a folder: its images and what made them."""

    def read(folder: Path) -> dict[str, object]:
        dataset = load_dataset(name.format(folder), folder, **options)
        factors = dataset.factors
        if dataset.factor_space is not None:
            factors = dataset.factor_space.factors_of(np.arange(len(dataset)))
        return {
            "images": dataset.images(np.arange(len(dataset))).numpy(),
            "factors": None if factors is None else np.asarray(factors).tolist(),
            "names": dataset.factor_names,
            "sizes": dataset.factor_sizes,
        }

    return read


def _same(one: dict, other: dict) -> bool:
    return np.array_equal(one["images"], other["images"]) and all(
        one[key] == other[key] for key in ("factors", "names", "sizes")
    )


def _alike(one: dict, other: dict) -> bool:
    """As many images of the same shape, and as many factors, if they are known."""
    return one["images"].shape == other["images"].shape and _labels_fit(one)


def _labels_fit(one: dict) -> bool:
    return one["factors"] is None or len(one["factors"]) == len(one["images"])


def _some_of_them(one: dict, other: dict) -> bool:
    """Images of the sound file, and no others."""
    known = {image.tobytes() for image in other["images"]}
    return all(image.tobytes() in known for image in one["images"]) and _labels_fit(one)


def _make_checkpoint(folder: Path) -> None:
    shutil.copy(run_of(4) / CHECKPOINT_NAME, folder)


def _make_log(folder: Path) -> None:
    shutil.copy(run_of(14) / STATS_NAME, folder)


def _read_log(folder: Path) -> dict[str, object]:
    """The log as pictures and a resumed run read it."""
    log_until(folder, 10)
    log = read_log(folder)
    with RunLog(folder, columns(3), 10, 2) as resumed:
        resumed.row({"step": 12, "recon": 1.0})
    return {"log": log, "resumed": read_log(folder)}


def _is_log(one: dict, _: dict) -> bool:
    resumed = one["resumed"]
    return resumed["step"][-1] == 12 and all(
        len({len(column) for column in log.values()}) == 1 for log in one.values()
    )


SWEEP = [TrainConfig(seed=seed, max_steps=4) for seed in range(2)]


def _make_sweep(folder: Path) -> None:
    figures = {"recon": 100.0, "kl": 2.5}
    known = {"state": "stopped", "steps": 2, "until": 4, "error": "", "figures": figures}
    names = [Path(config.output_dir).name for config in runs_of(SWEEP)]
    write_sweep(folder, SWEEP, [{"folder": name, **known} for name in names])


def _read_sweep(folder: Path) -> dict[str, object]:
    """As a command that adds a run to the sweep reads it."""
    check_same_sweep(folder, SWEEP)
    write_sweep(folder, SWEEP, [{"folder": "another", "state": "new", "figures": {}}])
    return read_sweep(folder)


def _is_sweep(one: dict, _: dict) -> bool:
    return one["runs"][-1]["folder"] == "another"


def _make_scores(folder: Path) -> None:
    values = {"mig": 0.25, "factor_vae_score": 0.5}
    made = {"standard_error": None, "how": "somehow"}
    content = {
        "checkpoint": {"path": "runs/a/ckpt.pt", "step": 100},
        "data": {"name": "squares", "source": "drawn", "factor_names": ["scale", "posX"]},
        "settings": {"seed": 0, "factors": None},
        "points": {"num_points": 2560},
        "scores": {name: {"value": value, **made} for name, value in values.items()},
        "details": {"sap": {"scores": [[0.5, 0.25]], "gaps": [0.5, 0.25]}},
    }
    (folder / METRICS_NAME).write_text(json.dumps(content))


def _make_npz(folder: Path) -> None:
    """One member packed, the others as they are."""
    images = pictures(12, 32, 32)
    factors = np.array(list(itertools.product(range(3), range(4))))
    np.savez_compressed(folder / "own.npz", images=images, factors=factors)
    np.savez(folder / "plain.npz", images=images, factors=factors, factor_names=["a", "b"])


def _read_npz(folder: Path) -> dict[str, object]:
    one, other = (_everything(f"npz:{{}}/{name}.npz")(folder) for name in ("own", "plain"))
    return {key: (one[key], other[key]) for key in one}


def _same_both(one: dict, other: dict) -> bool:
    return all(
        _same(*({key: value[which] for key, value in each.items()} for each in (one, other)))
        for which in range(2)
    )


def _make_images(kind: str, **options: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        images = pictures(2, 40, 32)
        files = {f"{n}.{kind}": encoded(image, kind, **options) for n, image in enumerate(images)}
        write_tree(folder / "images", files)

    return make


def _make_cache(folder: Path) -> None:
    _make_images("png")(folder)
    _everything("folder:{}/images", image_size=32)(folder)


def _read_cache(folder: Path) -> dict[str, object]:
    """The copy's images keep their times, but not their folder: its cache has another name."""
    (copied,) = folder.glob("folder/*.table")
    _everything("folder:{}/images", image_size=32)(folder)
    (made,) = [path for path in folder.glob("folder/*.table") if path != copied]
    made.write_bytes(copied.read_bytes())
    return _everything("folder:{}/images", image_size=32)(folder)


def _make_labels(folder: Path) -> None:
    shutil.copytree(data_dir() / "images", folder / "images")


ONE_CAR = SMALL_CARS3D.__class__(SMALL_CARS3D.names, (4, 24, 1), (*SMALL_CARS3D.values[:2], (0,)))


def _make_mat(folder: Path) -> None:
    write_cars3d(folder, cars=1)
    _everything("cars3d", space=ONE_CAR)(folder)
    (folder / "cars3d" / "nips2015-analogy-data.tar.gz").unlink()
    for cache in folder.glob("cars3d/*.table"):
        cache.unlink()


def _make_plain_norb(folder: Path) -> None:
    write_smallnorb(folder)
    for path in list(folder.glob("smallnorb/*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


CHAIRS = chair_files(("1a2b",), ((20, 0), (20, 11), (30, 0)))
NORB = {"space": SMALL_SMALLNORB, "image_size": 32}
CELEBA = {"image_size": 32}
CARS = {"space": ONE_CAR, "image_size": 32}
FACES = 6


def _are_scores(found, _) -> bool:
    counts = (found.step, found.num_points, found.seed)
    texts = [*found.data, found.weights or "", *found.factor_names, *found.factors]
    texts += [score.how for score in found.scores.values()]
    numbers = [score.value for score in found.scores.values()]
    whole = all(isinstance(count, int) for count in counts) and np.isfinite(numbers).all()
    return bool(whole) and all(isinstance(text, str) for text in texts)


FORMATS = {
    "checkpoint": Format(
        _make_checkpoint,
        CHECKPOINT_NAME,
        lambda folder: load_checkpoint(folder, resume_until=10**9),
        same_state,
    ),
    "cache": Format(_make_cache, "folder/*.table", _read_cache, _same),
    "stats.csv": Format(_make_log, STATS_NAME, _read_log, _is_log),
    "study.json": Format(_make_sweep, SWEEP_NAME, _read_sweep, _is_sweep),
    "metrics.json": Format(
        _make_scores,
        METRICS_NAME,
        lambda folder: read_scores(folder / METRICS_NAME),
        _are_scores,
    ),
    "npz": Format(_make_npz, "*.npz", _read_npz, _same_both),
    "mpi3d": Format(
        write_mpi3d, "mpi3d/*.npz", _everything("mpi3d_toy", spaces=SMALL_MPI3D), _same
    ),
    "hdf5": Format(
        write_shapes3d, "shapes3d/*.h5", _everything("shapes3d", space=SMALL_SHAPES3D), _alike
    ),
    "png": Format(
        _make_images("png"), "images/*", _everything("folder:{}/images", image_size=32), _same
    ),
    "jpeg": Format(
        _make_images("jpeg", quality=90),
        "images/*",
        _everything("folder:{}/images", image_size=32),
        _alike,
    ),
    "tar": Format(
        lambda folder: write_chairs(folder, files=CHAIRS),
        "chairs/*.tar",
        _everything("chairs", image_size=32),
        _some_of_them,
    ),
    "tar.gz": Format(
        lambda folder: write_cars3d(folder, cars=1),
        "cars3d/*.gz",
        _everything("cars3d", **CARS),
        _same,
    ),
    "zip": Format(
        lambda folder: write_celeba(folder, FACES, packed=True),
        "celeba/*.zip",
        _everything("celeba", split="all", **CELEBA),
        _same,
    ),
    "norb": Format(write_smallnorb, "smallnorb/*.gz", _everything("smallnorb", **NORB), _same),
    "norb-plain": Format(
        _make_plain_norb, "smallnorb/*.mat", _everything("smallnorb", **NORB), _alike
    ),
    "matlab": Format(_make_mat, "cars3d/cars/*.mat", _everything("cars3d", **CARS), _alike),
    "attributes": Format(
        lambda folder: write_celeba(folder, FACES),
        "celeba/*.txt",
        _everything("celeba", split="all", **CELEBA),
        _some_of_them,
    ),
    "attributes-csv": Format(
        lambda folder: write_celeba(folder, FACES, kind="csv"),
        "celeba/*.csv",
        _everything("celeba", split="all", **CELEBA),
        _some_of_them,
    ),
    "labels": Format(
        _make_labels,
        "images/factors.csv",
        _everything("folder:{}/images", image_size=32, grayscale=True),
        _alike,
    ),
}
