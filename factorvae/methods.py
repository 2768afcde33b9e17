"""The table of methods: names, sources and settings. Their functions are in `factorvae.penalties`.

It is apart from them for the command line, which tells of the methods and does not import torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Method:
    """A line of the table.

    title: its name in prose. penalises: what gamma weighs. source: paper and equation. defaults:
    the fields of the config that it fills where the user left them unset. settings: the keyword
    arguments of its penalty in `factorvae.penalties`, each the config's field of that name, or
    `num_images`, the size of the data. discriminator: whether that estimates the penalty. compares:
    whether the penalty compares the codes of a batch with each other.
    """

    title: str = ""
    penalises: str = ""
    source: str = ""
    defaults: Mapping[str, object] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    discriminator: bool = False
    compares: bool = True


# a recipe's gamma_start is of the total correlation, and says nothing of another penalty
NO_START = {"gamma_start": None}
METHODS: dict[str, Method] = {
    "factorvae": Method(
        title="FactorVAE",
        penalises="total correlation of z, by a discriminator",
        source="Kim & Mnih 2018, Eq. 2",
        discriminator=True,
    ),
    "betavae": Method(
        title="beta-VAE",
        penalises="nothing more: beta weighs the KL term",
        source="Higgins et al. 2017, Eq. 4",
        defaults={"beta": 4.0, "gamma": 0.0},
        compares=False,
    ),
    "annealed": Method(
        title="AnnealedVAE",
        penalises="distance of the KL term from a growing capacity",
        source="Burgess et al. 2018, Eq. 8",
        defaults={"beta": 0.0, "gamma": 1000.0, **NO_START},
        settings=("capacity", "capacity_steps"),
        compares=False,
    ),
    "dipvae1": Method(
        title="DIP-VAE-I",
        penalises="distance of the covariance of mu from the identity",
        source="Kumar et al. 2018, Eq. 6",
        defaults={"beta": 1.0, "gamma": 10.0, "dip_ratio": 10.0, **NO_START},
        settings=("dip_ratio",),
    ),
    "dipvae2": Method(
        title="DIP-VAE-II",
        penalises="distance of the covariance of z from the identity",
        source="Kumar et al. 2018, Eq. 7",
        defaults={"beta": 1.0, "gamma": 10.0, "dip_ratio": 1.0, **NO_START},
        settings=("dip_ratio",),
    ),
    "btcvae": Method(
        title="beta-TCVAE",
        penalises="total correlation of z, by minibatch sampling",
        source="Chen et al. 2018, Eq. 4",
        defaults={"beta": 1.0, "gamma": 5.0},
        settings=("num_images", "stratified"),
    ),
}

# methods that folders and tables have always told apart by gamma, and do not name
TOLD_BY_GAMMA = frozenset({"factorvae", "betavae"})
METHOD_DEFAULTS = frozenset(name for method in METHODS.values() for name in method.defaults)
METHOD_SETTINGS = frozenset(name for method in METHODS.values() for name in method.settings)


# of the discriminator, where a method has one
DISCRIMINATOR_SETTINGS = frozenset({"lr_disc", "disc_depth", "disc_width", "disc_standardize"})
# those that do something under some methods only
SETTINGS_OF_SOME = METHOD_SETTINGS | DISCRIMINATOR_SETTINGS


def settings_of_others(method: str) -> frozenset[str]:
    """The settings of other methods only."""
    return METHOD_SETTINGS - set(METHODS.get(method, Method()).settings)


def idle_settings(method: str) -> frozenset[str]:
    """Those that say nothing about a model of this method."""
    discriminator = METHODS.get(method, Method()).discriminator
    return settings_of_others(method) | (frozenset() if discriminator else DISCRIMINATOR_SETTINGS)
