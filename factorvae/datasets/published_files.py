"""Where the published files are, where they go below the data directory, and how one is known.

Sizes and checksums are those that other projects have recorded; `data/README.md` says more.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from factorvae.datasets.dsprites_drawing import DSPRITES
from factorvae.datasets.dsprites_file import OFFICIAL_FILE, read_official
from factorvae.datasets.image_files import TarImages
from factorvae.errors import UserError
from factorvae.progress import track


@dataclass(frozen=True)
class PublishedFile:
    """One file of a dataset.

    path: below the data directory. check: raises UserError unless the file at the path it is given
    holds what it should.
    """

    url: str
    path: str
    check: Callable[[Path], None]


def digest_is(algorithm: str, expected: str) -> Callable[[Path], None]:
    def check(file: Path) -> None:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, algorithm).hexdigest()
        if found != expected:
            size = file.stat().st_size
            raise UserError(f"{file} ({size:,} bytes) has {algorithm} {found}: expected {expected}")

    return check


def _check_dsprites(file: Path) -> None:
    for _ in track(read_official(file), len(DSPRITES), f"checking {file.name}"):
        pass  # reading is what checks


CHAIRS, VIEWS = 1393, 62


def is_chair(name: str) -> bool:
    """Whether a member of `rendered_chairs.tar` is one of its images."""
    return "/renders/" in name and name.endswith(".png")


def _check_chairs(file: Path) -> None:
    found = len(TarImages(file, is_chair).names)
    if found != CHAIRS * VIEWS:
        raise UserError(f"{file} holds {found:,} images: expected {CHAIRS * VIEWS:,}")


NORB = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
NORB_TRAINING = "smallnorb-5x46789x9x18x6x2x96x96-training"
NORB_TESTING = "smallnorb-5x01235x9x18x6x2x96x96-testing"
NORB_MD5 = {
    f"{NORB_TRAINING}-dat.mat.gz": "66054832f9accfe74a0f4c36a75bc0a2",
    f"{NORB_TRAINING}-cat.mat.gz": "23c8b86101fbf0904a000b43d3ed2fd9",
    f"{NORB_TRAINING}-info.mat.gz": "51dee1210a742582ff607dfd94e332e3",
    f"{NORB_TESTING}-dat.mat.gz": "e4ad715691ed5a3a5f138751a4ceb071",
    f"{NORB_TESTING}-cat.mat.gz": "5aa791cd7e6016cf957ce9bdb93b8603",
    f"{NORB_TESTING}-info.mat.gz": "a9454f3864d7fd4bb3ea7fc3eb84924e",
}

MPI3D = "https://storage.googleapis.com/disentanglement_dataset/Final_Dataset/"
MPI3D_MD5 = {
    "mpi3d_toy": "55889cb7c7dfc655d6e0277beee88868",
    "mpi3d_realistic": "59a6225b88b635365f70c91b3e52f70f",
    "mpi3d_real": "0f33f609918fb5c97996692f91129802",
}

PUBLISHED: dict[str, tuple[PublishedFile, ...]] = {
    "dsprites": (
        PublishedFile(
            f"https://github.com/deepmind/dsprites-dataset/raw/master/{OFFICIAL_FILE}",
            f"dsprites/{OFFICIAL_FILE}",
            _check_dsprites,
        ),
    ),
    "shapes3d": (
        PublishedFile(
            "https://storage.googleapis.com/3d-shapes/3dshapes.h5",
            "shapes3d/3dshapes.h5",
            digest_is("sha256", "0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785"),
        ),
    ),
    "chairs": (
        PublishedFile(
            "https://www.di.ens.fr/willow/research/seeing3Dchairs/data/rendered_chairs.tar",
            "chairs/rendered_chairs.tar",
            _check_chairs,
        ),
    ),
    "cars3d": (
        PublishedFile(
            "http://www.scottreed.info/files/nips2015-analogy-data.tar.gz",
            "cars3d/nips2015-analogy-data.tar.gz",
            digest_is("md5", "4e866a7919c1beedf53964e6f7a23686"),
        ),
    ),
    "smallnorb": tuple(
        PublishedFile(f"{NORB}{name}", f"smallnorb/{name}", digest_is("md5", md5))
        for name, md5 in NORB_MD5.items()
    ),
    **{
        name: (PublishedFile(f"{MPI3D}{name}.npz", f"mpi3d/{name}.npz", digest_is("md5", md5)),)
        for name, md5 in MPI3D_MD5.items()
    },
}

# What no program may or can fetch, and what it takes.
BY_HAND = {
    "celeba": (
        "CelebA's licence needs a person: get img_align_celeba.zip, list_attr_celeba.txt and "
        "list_eval_partition.txt from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put "
        "them in {data_dir}/celeba/ (the zip may stay packed, the lists may be .csv files with a "
        "header, and --split all needs no partition)"
    ),
    "scream_dsprites": (
        "scream_dsprites needs a picture of Munch's The Scream of your own: put it in "
        "{data_dir}/scream/scream.jpg"
    ),
}


def how_to_get(name: str, data_dir: str | Path) -> str:
    """Which file from where goes into which folder, in one line."""
    if name in BY_HAND:
        return BY_HAND[name].format(data_dir=data_dir)
    files = PUBLISHED[name]
    if len(files) > 1:  # too many for a line: `locate` prints them
        urls = f"its {len(files)} files from {files[0].url.rpartition('/')[0]}/"
    else:
        urls = files[0].url
    folder = (Path(data_dir) / files[0].path).parent
    return (
        f"`python -m factorvae.datasets.download {name} --data_dir {data_dir}` fetches it, or get "
        f"{urls} and put {'them' if len(files) > 1 else 'it'} in {folder}/"
    )


def locate(data_dir: Path, folders: tuple[str, ...], names: tuple[str, ...], dataset: str) -> Path:
    """The first of `names` that is in one of the folders below data_dir; UserError if none is."""
    path = find(data_dir, folders, names)
    if path is not None:
        return path
    if dataset not in BY_HAND and len(PUBLISHED[dataset]) > 1:
        for file in PUBLISHED[dataset]:  # beside the error's one line, to be copied
            print(file.url, file=sys.stderr)
    raise UserError(
        f"{' or '.join(names)} is in none of {', '.join(str(data_dir / f) for f in folders)}: "
        f"{how_to_get(dataset, data_dir)}"
    )


def find(data_dir: Path, folders: tuple[str, ...], names: tuple[str, ...]) -> Path | None:
    """The first of `names` that is in one of the folders below data_dir, if one is."""
    for folder in folders:
        for name in names:
            path = data_dir / folder / name
            if path.is_file() or path.is_dir():  # a pipe would never end
                return path
    return None
