"""Datasets by name: images, and the factors that made them where those are known."""

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from factorvae.datasets.array_file import load_array_file
from factorvae.datasets.cars3d import load_cars3d
from factorvae.datasets.celeba import load_celeba
from factorvae.datasets.chairs import load_chairs
from factorvae.datasets.dsprites import load_dsprites
from factorvae.datasets.dsprites_variants import (
    load_color_dsprites,
    load_noisy_dsprites,
    load_scream_dsprites,
)
from factorvae.datasets.factors import FactorSpace
from factorvae.datasets.folder import load_folder
from factorvae.datasets.mpi3d import load_mpi3d
from factorvae.datasets.rooms import load_rooms
from factorvae.datasets.shapes3d import load_shapes3d
from factorvae.datasets.smallnorb import load_smallnorb
from factorvae.datasets.table import Dataset, factors_of
from factorvae.errors import UserError

__all__ = ["DATASETS", "Dataset", "FactorSpace", "factors_of", "load_dataset"]

# Those of a path of the user's own, by what stands before the colon.
ANYWHERE = {"folder": "folder:PATH", "npz": "npz:FILE"}

DATASETS: Mapping[str, Callable[..., Dataset]] = {
    "dsprites": load_dsprites,
    "rooms": load_rooms,
    "color_dsprites": load_color_dsprites,
    "noisy_dsprites": load_noisy_dsprites,
    "scream_dsprites": load_scream_dsprites,
    "shapes3d": load_shapes3d,
    "chairs": load_chairs,
    "celeba": load_celeba,
    "cars3d": load_cars3d,
    "smallnorb": load_smallnorb,
    "mpi3d_toy": functools.partial(load_mpi3d, "toy"),
    "mpi3d_realistic": functools.partial(load_mpi3d, "realistic"),
    "mpi3d_real": functools.partial(load_mpi3d, "real"),
    ANYWHERE["folder"]: load_folder,
    ANYWHERE["npz"]: load_array_file,
}


def load_dataset(name: str, data_dir: str | Path = "data", **options: object) -> Dataset:
    """The dataset of that name, prepared under data_dir first where it needs to be.

    name: one of DATASETS, where PATH in 'folder:PATH' is any folder of images, and FILE in
    'npz:FILE' any npz file of them. options: the loader's own, see there; None and False are as
    good as not given. Raises UserError for an unknown name, an option that the dataset does not
    have, what the system says of a path, and whatever the loader does.
    """
    if "\0" in f"{name}{data_dir}":
        raise UserError(f"the paths of {name!r} and {str(data_dir)!r} must not hold a NUL")
    key, path = _key_and_path(name)
    unset = (None, False)
    options = {key: value for key, value in options.items() if not any(value is u for u in unset)}
    for option in options:
        if option not in options_of(name):
            those = [known for known in DATASETS if option in options_of(known)]
            raise UserError(f"{name} has no {option}; it is for {', '.join(those) or 'no dataset'}")
    arguments = (path,) if path else ()
    try:
        return DATASETS[key](data_dir, *arguments, **options)
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(f"cannot read {os.fsdecode(error.filename)}: {error.strerror}") from error


def options_of(name: str) -> list[str]:
    """The names of a dataset's options: what its loader takes by keyword only.

    Raises UserError for an unknown name.
    """
    key, _ = _key_and_path(name)
    parameters = inspect.signature(DATASETS[key]).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def _key_and_path(name: str) -> tuple[str, str]:
    """'folder:PATH' and the path of 'folder:mine'; the name itself and no path of any other."""
    kind, _, path = name.partition(":")
    key, path = (ANYWHERE[kind], path) if kind in ANYWHERE and path else (name, "")
    if key not in DATASETS:
        raise UserError(f"unknown dataset {name!r}; known are {', '.join(DATASETS)}")
    return key, path
