"""What several test files share: scripts run in this process, small data, comparisons.

Most of it is small files in the formats of the published datasets, and what their loaders should
make of them: each `write_*` puts the files of one dataset below a data directory, where its
loader looks, and returns the images as they are in the published order: uint8 [N, H, W, 3] or
[N, H, W].
"""

import contextlib
import functools
import gzip
import io
import os
import signal
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import scipy.io
import torch
from PIL import Image

from factorvae.datasets.cars3d import CARS3D
from factorvae.datasets.dsprites_drawing import DSPRITES, render
from factorvae.datasets.factors import SHAPES3D, FactorSpace
from factorvae.datasets.mpi3d import NAMES as MPI3D_NAMES
from factorvae.datasets.published_files import NORB_TESTING, NORB_TRAINING
from factorvae.datasets.smallnorb import SMALLNORB
from factorvae.errors import run_script
from factorvae.files import STATS_NAME

SMALL_SHAPES3D = FactorSpace(
    SHAPES3D.names,
    (2, 2, 2, 2, 2, 3),
    [v[:n] for v, n in zip(SHAPES3D.values, (2, 2, 2, 2, 2, 3), strict=True)],
)
SMALL_MPI3D = (
    FactorSpace(MPI3D_NAMES, (3, 3, 2, 1, 1, 2, 3)),
    FactorSpace(MPI3D_NAMES, (2, 2, 2, 1, 1, 2, 3)),
)
SMALL_CARS3D = FactorSpace(CARS3D.names, (4, 24, 3), (*CARS3D.values[:2], range(3)))
SMALL_SMALLNORB = FactorSpace(
    SMALLNORB.names,
    (2, 4, 2, 3, 2),
    [v[:n] for v, n in zip(SMALLNORB.values, (2, 4, 2, 3, 2), strict=True)],
)


def run_main(main, *argv):
    """A script's `main` in this process: its exit code, stdout and stderr."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = run_script(lambda: main([*map(str, argv)]))
    return code, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def meanwhile(act):
    """`act` is done in a thread beside the block; what it raises is raised at the block's end.

    A signal to this process that comes when no run takes it any more does no harm.
    """

    def act_or_end() -> None:
        try:
            act()
        except BaseException:
            os.kill(os.getpid(), signal.SIGTERM)  # or the block would go on for ever
            raise

    numbers = (signal.SIGINT, signal.SIGTERM)
    earlier = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(act_or_end)
            yield
            future.result()
    finally:
        for number, handler in zip(numbers, earlier, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def no_wait_for_the_device():
    """What makes the host wait for CUDA is an error within; the mode is then as it was."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def pictures(n, height, width, channels=(3,), seed=0):
    """n different smooth pictures, uint8 [n, height, width, *channels]."""
    return _pictures(n, height, width, channels, seed).copy()


@functools.lru_cache(32)
def _pictures(n, height, width, channels, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = rng.uniform(1, 6, (n, 2, *channels))
    phase = rng.uniform(0, 6, (n, *channels))
    add = (slice(None),) * 2 + (None,) * len(channels)
    angle = waves[:, 0, None, None] * y[add] + waves[:, 1, None, None] * x[add]
    return (127.5 + 127 * np.sin(angle + phase[:, None, None])).astype(np.uint8)


def encoded(pixels, kind="png", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def write_shapes3d(data_dir, space=SMALL_SHAPES3D, **changes):
    """changes: arrays in place of `images` or `labels`; None leaves one out."""
    grid = space.factors_of(np.arange(len(space)))
    labels = np.column_stack([np.array(v)[g] for v, g in zip(space.values, grid.T, strict=True)])
    arrays = {"images": pictures(len(space), 64, 64), "labels": labels} | changes
    path = data_dir / "shapes3d" / "3dshapes.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if array is not None:
                file.create_dataset(name, data=array, chunks=True, compression="gzip")
    return arrays["images"]


def write_mpi3d(data_dir, name="mpi3d_toy", space=SMALL_MPI3D[0], **changes):
    arrays = {"images": pictures(len(space), 64, 64)} | changes
    path = data_dir / "mpi3d" / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return arrays["images"]


def write_cars3d(data_dir, cars=3, **changes):
    """A tar.gz as published: other members, and the files in no order."""
    images, archive = cars3d_archive(cars, **changes) if changes else sound_cars3d(cars)
    path = data_dir / "cars3d" / "nips2015-analogy-data.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive)
    return images.transpose(1, 2, 0, 3, 4, 5).reshape(-1, 128, 128, 3)


def cars3d_archive(cars, **changes):
    """Its images [cars, 4, 24, 128, 128, 3] and its bytes."""
    images = pictures(cars * 96, 128, 128).reshape(cars, 4, 24, 128, 128, 3)
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz", compresslevel=1) as archive:
        add_member(archive, "data/sprites/sprites_1.mat", b"something else")
        for car in reversed(range(cars)):
            im = images[car].transpose(2, 3, 4, 1, 0)  # [128, 128, 3, 24, 4]
            buffer = io.BytesIO()
            scipy.io.savemat(buffer, {"im": im, "mask": im[:, :, 0]} | changes)
            add_member(archive, f"data/cars/car_{car:03}_mesh.mat", buffer.getvalue())
        add_member(archive, "data/cars/list.txt", b"car_000_mesh\n")
    return images, whole.getvalue()


sound_cars3d = functools.cache(cars3d_archive)


def add_member(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def binary_matrix(array):
    """SmallNORB's format: magic number, dimensions, at least three sizes, values."""
    magic = {1: 0x1E3D4C55, 4: 0x1E3D4C54}[array.itemsize]
    sizes = (*array.shape, 1, 1)[: max(3, array.ndim)]
    return struct.pack(f"<{2 + len(sizes)}i", magic, array.ndim, *sizes) + array.tobytes()


def write_smallnorb(data_dir, space=SMALL_SMALLNORB, change=lambda name, array: array):
    """Odd instances are for training and even ones for testing; images come in no order."""
    folder = data_dir / "smallnorb"
    folder.mkdir(parents=True, exist_ok=True)
    grid = space.factors_of(np.arange(len(space)))
    images = pictures(len(space), 96, 96, ())
    for part, parity in ((NORB_TRAINING, 1), (NORB_TESTING, 0)):
        index = np.random.default_rng(1).permutation(np.flatnonzero(grid[:, 1] % 2 == parity))
        info = grid[index, 1:] * [1, 1, 2, 1]
        arrays = {
            "dat": np.stack([images[index], 255 - images[index]], axis=1),
            "cat": grid[index, 0].astype("<i4"),
            "info": info.astype("<i4"),
        }
        for kind, array in arrays.items():
            content = binary_matrix(change(f"{part}-{kind}", array))
            (folder / f"{part}-{kind}.mat.gz").write_bytes(gzip.compress(content, 1))
    return images


CHAIR_IDS = ("1a2b", "77cc", "f00d")
CHAIR_VIEWS = tuple((p, t) for p in (20, 30) for t in (0, 11, 23))


@functools.cache
def chair_files(ids=CHAIR_IDS, views=CHAIR_VIEWS):
    """{path: (chair, azimuth, elevation, pixels)} of 600x600 pixels."""
    files = {}
    for chair, folder in enumerate(ids):
        for number, (elevation, azimuth) in enumerate(views):
            name = f"image_{number:03}_p{elevation:03}_t{azimuth:03}_r096.png"
            path = f"rendered_chairs/{folder}/renders/{name}"
            view = chair, azimuth, elevation
            files[path] = (*view, chair_pixels(*view))
    return files


def chair_pixels(chair, azimuth, elevation):
    """A coloured block inside the middle 400 pixels.

    A black frame lies outside them, as a mark of a crop that does nothing.
    """
    pixels = np.zeros((600, 600, 3), np.uint8)
    pixels[100:500, 100:500] = 255
    pixels[200:400, 200:400] = (60 * chair, 5 * azimuth, 5 * elevation)
    return pixels


@functools.cache
def chair_png(*view):
    return encoded(chair_pixels(*view), compress_level=1)


def write_chairs(data_dir, packed=True, files=None):
    files = chair_files() if files is None else files
    contents = {name: chair_png(*view) for name, (*view, _) in files.items()}
    contents["rendered_chairs/all_chair_names.mat"] = b"a list"
    folder = data_dir / "chairs"
    folder.mkdir(parents=True, exist_ok=True)
    if packed:
        with tarfile.open(folder / "rendered_chairs.tar", "w") as archive:
            for name in reversed(contents):
                add_member(archive, name, contents[name])
    else:
        write_tree(folder, contents)
    return files


def write_tree(folder, contents):
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


CELEBA_ATTRIBUTES = ("5_o_Clock_Shadow", "Bald", "Young")


def write_celeba(data_dir, n=12, packed=False, inside="img_align_celeba", kind="txt"):
    """Images, attributes 0/1 [n, 3] and splits [n]. JPEGs of 218x178 as published.

    inside: where they are in the zip or the folder. kind: of the lists, 'txt' or a mirror's 'csv'.
    """
    images = pictures(n, 218, 178)
    names = [f"{number:06}.jpg" for number in range(1, n + 1)]
    attributes = np.random.default_rng(2).integers(0, 2, (n, len(CELEBA_ATTRIBUTES)))
    splits = np.repeat([0, 1, 2], [n - 4, 2, 2])
    folder = data_dir / "celeba"
    contents = {
        f"{inside}/{name}": encoded(image, "jpeg", quality=95)
        for name, image in zip(names, images, strict=True)
    }
    folder.mkdir(parents=True, exist_ok=True)
    if packed:
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        write_tree(folder, contents)
    rows = [
        f"{name} {' '.join(f'{2 * value - 1:2}' for value in row)}\n"
        for name, row in zip(names, attributes, strict=True)
    ]
    header = f"{n}\n{' '.join(CELEBA_ATTRIBUTES)} \n"
    lines = [f"{name} {split}\n" for name, split in zip(names, splits, strict=True)]
    if kind == "csv":
        header = f"image_id,{','.join(CELEBA_ATTRIBUTES)}\n"
        rows, lines = ([",".join(row.split()) + "\n" for row in each] for each in (rows, lines))
        lines = ["image_id,partition\n", *lines]
    (folder / f"list_attr_celeba.{kind}").write_text(header + "".join(rows))
    (folder / f"list_eval_partition.{kind}").write_text("".join(lines))
    return images, attributes, splits


def part_of_dsprites(orientations=3):
    """Every size cut down, the values being dSprites' own; 384 images per orientation."""
    kept = ([0, 1, 2], [0, 5], range(orientations), range(0, 32, 4), range(0, 32, 4))
    values = [np.array(v)[k] for v, k in zip(DSPRITES.values, kept, strict=True)]
    return FactorSpace(DSPRITES.names, [len(v) for v in values], values)


SPACE = part_of_dsprites()
PACKED = np.concatenate(list(render(SPACE)))  # uint8 [1152, 512]
PIXELS = np.unpackbits(PACKED, axis=1).reshape(-1, 64, 64)


def flip_one_bit(data):
    return data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:]


def same_state(one, other):
    """Whether two nested checkpoints agree to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_state, one, other))
    return one == other


def rows_but_speed(run_dir):
    lines = (run_dir / STATS_NAME).read_text().splitlines()
    return [line.rpartition(",")[0] for line in lines]
