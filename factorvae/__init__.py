"""FactorVAE (Kim & Mnih 2018, arXiv 1802.05983): model, training, data and metrics.

What a notebook needs is here: see docs/python.md. Each name is imported when it is first asked
for, so that importing a part of the package, such as its settings, does not import torch.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "Dataset": "factorvae.datasets",
    "FactorSpace": "factorvae.datasets",
    "load_dataset": "factorvae.datasets",
    "load_model": "factorvae.checkpoint",
    "Trainer": "factorvae.training.trainer",
    "TrainConfig": "factorvae.config",
    "VAE": "factorvae.models",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
