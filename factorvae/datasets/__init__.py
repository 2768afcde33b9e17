"""Datasets by name: images, and the factors that made them where those are known."""

from collections.abc import Callable, Mapping
from pathlib import Path

from factorvae.datasets.dsprites import load_dsprites
from factorvae.datasets.factors import FactorSpace
from factorvae.datasets.table import Dataset
from factorvae.errors import UserError

__all__ = ["DATASETS", "Dataset", "FactorSpace", "load_dataset"]

DATASETS: Mapping[str, Callable[..., Dataset]] = {
    "dsprites": load_dsprites,
}


def load_dataset(name: str, data_dir: str | Path = "data", **options: object) -> Dataset:
    """The dataset of that name, prepared under data_dir first where it needs to be.

    options: the loader's own, see DATASETS. Raises UserError for an unknown name, and whatever the
    loader does.
    """
    if name not in DATASETS:
        raise UserError(f"unknown dataset {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name](data_dir, **options)
