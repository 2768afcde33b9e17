"""Files that somebody made on purpose: code to run, bombs, ways out of a folder, settings to hurt.

Whatever `make` puts into a folder, `read` in a child runs no code of it, writes nothing outside
the folder, and needs neither long nor much memory. What gets out is a file named `escaped`, in the
folder above.
"""

import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

import evaluate
import train
import visualize
from factorvae.checkpoint import load_checkpoint
from factorvae.datasets import load_dataset
from factorvae.files import CHECKPOINT_NAME, SWEEP_NAME
from factorvae.training.sweep_folder import read_sweep
from tests.faults.tiny import run_of, train_flags
from tests.helpers import (
    SMALL_SHAPES3D,
    add_member,
    encoded,
    pictures,
    write_celeba,
    write_shapes3d,
    write_tree,
)


@dataclass(frozen=True)
class Crafted:
    """make: writes it into a folder. read: what a user would do with it. codes: exit codes."""

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    codes: tuple[int, ...] = (2,)


class Escape:
    """Unpickled, it writes a file where no file should be."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def _outside(folder: Path) -> Path:
    return folder.parent / "escaped"


# Pickles


def _pickled_checkpoint(folder: Path) -> None:
    torch.save({"format": "factorvae", "version": 1, "x": Escape(_outside(folder))}, _ckpt(folder))


def _pickle_as_checkpoint(folder: Path) -> None:
    _ckpt(folder).write_bytes(pickle.dumps(Escape(_outside(folder))))


def _pickled_array(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        arrays = {"images": pictures(4, 32, 32), "factors": np.zeros((4, 1), int)}
        evil = np.empty(4, object)
        evil[:] = [Escape(_outside(folder))] * 4
        np.savez(folder / "own.npz", **(arrays | {name: evil}))

    return make


def _ckpt(folder: Path) -> Path:
    return folder / CHECKPOINT_NAME


def _load(folder: Path) -> None:
    load_checkpoint(folder)


# Bombs


def _npy_header(dtype: str, shape: str) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _npz_of(compression: int, shape: str, zeros: int) -> Callable[[Path], None]:
    """An npz whose images claim a shape, with so many bytes of zeros."""

    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / "own.npz", "w", compression, compresslevel=1) as archive:
            with archive.open("images.npy", "w", force_zip64=True) as member:
                member.write(_npy_header("|u1", shape))
                for _ in range(zeros >> 20):
                    member.write(bytes(1 << 20))

    return make


def _lzma_of_a_huge_dictionary(folder: Path) -> None:
    """Its properties ask for four gigabytes before the first byte."""
    _npz_of(zipfile.ZIP_LZMA, "(4, 32, 32)", 1 << 20)(folder)
    path = folder / "own.npz"
    data = bytearray(path.read_bytes())
    start = 30 + len("images.npy") + int.from_bytes(data[28:30], "little")
    data[start + 5 : start + 9] = b"\xff\xff\xff\xf0"
    path.write_bytes(data)


def _packed_zeros(mebibytes: int) -> bytes:
    """A zlib stream of zeros without compressing them: one block over and over."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (mebibytes << 20) % 65521 << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + block * mebibytes + b"\x03\0" + struct.pack(">I", checksum)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _png(width: int, height: int, pixels: bytes, *more: bytes) -> bytes:
    """Grey, of packed pixels."""
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = _png_chunk(b"IDAT", pixels)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + _png_chunk(b"IEND", b"")


ROWS = zlib.compress(bytes(33 * 32))  # of a PNG of 32x32, with a byte for each row's filter


def _png_of_many_pixels(folder: Path) -> None:
    _images(folder, {"0.png": _png(60_000, 60_000, _packed_zeros(1))})


def _png_of_more_pixels_than_it_says(folder: Path) -> None:
    _images(folder, {"0.png": _png(32, 32, _packed_zeros(512))})


def _png_of_long_text(folder: Path) -> None:
    text = _png_chunk(b"zTXt", b"Comment\0\0" + _packed_zeros(512))
    _images(folder, {"0.png": _png(32, 32, ROWS, text)})


def _png_of_long_profile(folder: Path) -> None:
    profile = _png_chunk(b"iCCP", b"p\0\0" + _packed_zeros(512))
    _images(folder, {"0.png": _png(32, 32, ROWS, profile)})


def _gif_of_many_pixels(folder: Path) -> None:
    gif = bytearray(encoded(np.zeros((8, 8), np.uint8), "gif"))
    gif[6:10] = b"\xff\xff\xff\xff"
    _images(folder, {"0.gif": bytes(gif)})


def _images(folder: Path, files: dict[str, bytes]) -> None:
    write_tree(folder / "images", files)


def _load_images(folder: Path) -> None:
    load_dataset(f"folder:{folder}/images", folder, image_size=32)


def _hdf5_of_one_chunk(folder: Path) -> None:
    """One chunk of 400 MB of zeros, in 1 MB."""
    path = folder / "shapes3d" / "3dshapes.h5"
    write_shapes3d(folder)
    with h5py.File(path, "r+") as file:
        shape = file["images"].shape
        chunks = (1 << 15, *shape[1:])
        mebibytes = int(np.prod(chunks)) >> 20
        del file["images"]
        options = {"maxshape": (None, *shape[1:]), "chunks": chunks, "compression": "gzip"}
        images = file.create_dataset("images", shape, "u1", **options)
        images.id.write_direct_chunk((0, 0, 0, 0), _packed_zeros(mebibytes))


def _hdf5_elsewhere(kind: str) -> Callable[[Path], None]:
    """Its images are in another file, anywhere on the machine."""

    def make(folder: Path) -> None:
        write_shapes3d(folder)
        path, other = folder / "shapes3d" / "3dshapes.h5", folder / "other.h5"
        path.rename(other)
        with h5py.File(other) as there, h5py.File(path, "w") as file:
            shape = there["images"].shape
            file["labels"] = there["labels"][:]
            if kind == "link":
                file["images"] = h5py.ExternalLink(str(other), "images")
            elif kind == "loop":
                file["images"] = h5py.SoftLink("/images")
            elif kind == "raw":
                raw = [(str(other), 0, h5py.h5f.UNLIMITED)]
                file.create_dataset("images", shape, "u1", external=raw)
            else:
                layout = h5py.VirtualLayout(shape, "u1")
                layout[:] = h5py.VirtualSource(str(other), "images", shape)
                file.create_virtual_dataset("images", layout)

    return make


def _load_shapes(folder: Path) -> None:
    load_dataset("shapes3d", folder, space=SMALL_SHAPES3D)


# Archives with ways out


def _tar(kind: str, *members: tarfile.TarInfo | str) -> Callable[[Path], None]:
    """A set's archive with such members; a name stands for a small file."""

    def make(folder: Path) -> None:
        name, mode, inside = {
            "cars": ("cars3d/nips2015-analogy-data.tar.gz", "w:gz", "data/cars/"),
            "chairs": ("chairs/rendered_chairs.tar", "w", "rendered_chairs/1a2b/renders/"),
        }[kind]
        path = folder / name
        path.parent.mkdir()
        with tarfile.open(path, mode) as archive:
            for member in members:
                if isinstance(member, str):
                    add_member(archive, member.format(inside=inside, out=_outside(folder)), b"x")
                    continue
                made = tarfile.TarInfo(member.name.format(inside=inside))
                made.type = member.type
                made.linkname = member.linkname.format(out=_outside(folder))
                archive.addfile(made)

    return make


def _link(kind: bytes, name: str, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def _load_cars(folder: Path) -> None:
    load_dataset("cars3d", folder)


def _load_chairs(folder: Path) -> None:
    load_dataset("chairs", folder)


SYMLINK, HARD_LINK, DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
WAYS_OUT: dict[str, tuple[object, ...]] = {
    "up": ("{inside}../../../../../escaped.mat",),
    "up-png": ("rendered_chairs/renders/../../../../../escaped.png",),
    "absolute": ("{out}/cars/x.mat", "{out}/renders/x.png"),
    "symlink": (_link(SYMLINK, "{inside}a.mat", "{out}"), "{inside}a.mat"),
    "symlinked-folder": (_link(SYMLINK, "data", "{out}"), "{inside}a.mat", "{inside}a.png"),
    "hard-link": (_link(HARD_LINK, "{inside}a.mat", "{out}"), "{inside}a.mat"),
    "device": (_link(DEVICE, "{inside}a.mat"), _link(DEVICE, "{inside}a.png")),
    "pipe": (_link(tarfile.FIFOTYPE, "{inside}a.mat"), _link(tarfile.FIFOTYPE, "{inside}a.png")),
}


def _zip_with_a_way_out(folder: Path) -> None:
    write_celeba(folder, 6, packed=True)
    with zipfile.ZipFile(folder / "celeba" / "img_align_celeba.zip", "a") as archive:
        archive.writestr("../../../escaped.jpg", b"x")


def _zip_of_a_large_member(folder: Path) -> None:
    write_celeba(folder, 6, packed=True)
    path = folder / "celeba" / "img_align_celeba.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("img_align_celeba/000001.jpg", "w") as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
        for number in range(2, 7):
            archive.writestr(f"img_align_celeba/{number:06}.jpg", encoded(pictures(1, 8, 8)[0]))


def _list_with_a_way_out(folder: Path) -> None:
    write_celeba(folder, 6)
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        path = folder / "celeba" / name
        path.write_text(path.read_text().replace("000001.jpg", "../../../etc/passwd"))


def _load_faces(folder: Path) -> None:
    load_dataset("celeba", folder, split="all", image_size=32)


def _images_that_never_end(folder: Path) -> None:
    (folder / "images").mkdir()
    os.mkfifo(folder / "images" / "0.png")
    (folder / "images" / "1.png").symlink_to("/dev/zero")


# Settings


def _with(section: str | None, **changes: object) -> Callable[[Path], None]:
    """A sound checkpoint with other values in one of its sections."""

    def make(folder: Path) -> None:
        state = torch.load(run_of(4) / CHECKPOINT_NAME, weights_only=True)
        told = {
            k: v.format(out=_outside(folder)) if isinstance(v, str) else v
            for k, v in changes.items()
        }
        (state if section is None else state[section]).update(told)
        torch.save(state, _ckpt(folder))

    return make


def _resume(folder: Path) -> int:
    return train.main(train_flags(folder, 6))


def _evaluate(folder: Path) -> None:
    evaluate.main(["--model_path", str(folder), "--metrics", "mig", "--threads", "1"])


def _draw(folder: Path) -> None:
    visualize.main(["--model_path", str(folder), "--output_dir", str(folder / "results")])


def _nested(folder: Path) -> None:
    (folder / SWEEP_NAME).write_text("[" * 10**6)


def _endless_tensor(folder: Path) -> None:
    """One number that stands for 2**60."""
    _with("vae", **{"encoder.head.bias": torch.zeros(()).expand(2**40)})(folder)


SETTINGS: dict[str, Callable[[Path], None]] = {
    "latents": _with("config", latent_dim=10**9),
    "width": _with("config", disc_width=10**9),
    "depth": _with("config", disc_depth=10**6),
    "hidden": _with("config", hidden_dim=2**62),
    "shape": _with("dataset", image_shape=[3, 2**31, 2**31]),
    "option": _with("dataset", options={"__class__": "os.system"}),
    "threads": _with(None, threads=10**9),
    "step": _with(None, step=2**63),
    "nan": _with(None, sums=torch.full((8,), torch.nan, dtype=torch.float64)),
    "tensor": _endless_tensor,
    "dataset": _with("config", dataset="folder:/nowhere\x1b[2J"),
    "method": _with("config", method="__import__('os')"),
}

CRAFTED: dict[str, Crafted] = {
    "pickle-in-checkpoint": Crafted(_pickled_checkpoint, _load),
    "pickle-as-checkpoint": Crafted(_pickle_as_checkpoint, _load),
    **{
        f"pickle-as-{name}": Crafted(
            _pickled_array(name),
            lambda folder: load_dataset(f"npz:{folder}/own.npz", folder, image_size=32),
        )
        for name in ("images", "factors", "factor_names")
    },
    **{
        f"npz-{name}": Crafted(
            make, lambda folder: load_dataset(f"npz:{folder}/own.npz", folder, image_size=32)
        )
        for name, make in {
            "bomb": _npz_of(zipfile.ZIP_DEFLATED, "(4, 32, 32)", 1 << 28),
            "of-many": _npz_of(zipfile.ZIP_DEFLATED, f"({2**40}, 32, 32)", 1 << 26),
            "of-large-images": _npz_of(zipfile.ZIP_DEFLATED, f"(1, {2**20}, {2**20})", 1 << 26),
            "of-more-than-a-number": _npz_of(zipfile.ZIP_STORED, f"({2**62}, 4, 4)", 0),
            "bzip2": _npz_of(zipfile.ZIP_BZIP2, f"({2**40}, 32, 32)", 1 << 24),
            "lzma": _npz_of(zipfile.ZIP_LZMA, f"({2**40}, 32, 32)", 1 << 24),
            "lzma-dictionary": _lzma_of_a_huge_dictionary,
        }.items()
    },
    **{
        f"image-{name}": Crafted(make, _load_images, (0, 2))
        for name, make in {
            "of-many-pixels": _png_of_many_pixels,
            "of-more-than-it-says": _png_of_more_pixels_than_it_says,
            "of-long-text": _png_of_long_text,
            "of-long-profile": _png_of_long_profile,
            "gif": _gif_of_many_pixels,
            "never-ending": _images_that_never_end,
        }.items()
    },
    "hdf5-of-one-chunk": Crafted(_hdf5_of_one_chunk, _load_shapes),
    **{
        f"hdf5-{kind}": Crafted(_hdf5_elsewhere(kind), _load_shapes)
        for kind in ("link", "loop", "raw", "virtual")
    },
    **{f"cars-{name}": Crafted(_tar("cars", *out), _load_cars) for name, out in WAYS_OUT.items()},
    **{
        f"chairs-{name}": Crafted(_tar("chairs", *out), _load_chairs)
        for name, out in WAYS_OUT.items()
    },
    "zip-with-a-way-out": Crafted(_zip_with_a_way_out, _load_faces, (0,)),
    "zip-of-a-large-member": Crafted(_zip_of_a_large_member, _load_faces),
    "list-with-a-way-out": Crafted(_list_with_a_way_out, _load_faces),
    **{f"settings-{name}": Crafted(make, _resume) for name, make in SETTINGS.items()},
    **{
        f"settings-{name}-{told}": Crafted(SETTINGS[name], read)
        for name in ("latents", "shape", "option", "tensor", "dataset")
        for told, read in (("evaluated", _evaluate), ("drawn", _draw))
    },
    "data-elsewhere": Crafted(_with("config", data_dir="{out}/data"), _evaluate, (0, 2)),
    "output-elsewhere": Crafted(_with("config", output_dir="{out}"), _draw, (0, 2)),
    "nested-study": Crafted(_nested, read_sweep),
}
