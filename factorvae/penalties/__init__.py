"""The methods, as what each adds to the VAE's loss: `recon + beta * kl + gamma * penalty`.

A penalty is a pure function of (mu, logvar, z, step) and of settings named after fields of
`TrainConfig`. A further method is such a function and an entry of `METHODS`.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from factorvae.penalties.annealed import capacity_distance
from factorvae.penalties.beta_tcvae import minibatch_total_correlation
from factorvae.penalties.dip_vae import dip_vae_1, dip_vae_2

# of mu, logvar, z [B, latent_dim], float32, and the steps done, int64 []; gives a float32 []
Penalty = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """A line of the table.

    title: its name in prose. penalises: what gamma weighs. source: paper and equation. defaults:
    the fields of the config that it fills where the user left them unset. penalty: a function;
    None where the discriminator estimates it, or there is none. settings: its keyword arguments,
    each the config's field of that name, or `num_images`, the size of the data.
    """

    title: str = ""
    penalises: str = ""
    source: str = ""
    defaults: Mapping[str, object] = field(default_factory=dict)
    penalty: Callable[..., Tensor] | None = None
    settings: tuple[str, ...] = ()
    discriminator: bool = False

    def bind(self, values: Mapping[str, object]) -> Penalty | None:
        """The penalty with its settings taken from `values`; None where it has no function."""
        if self.penalty is None:
            return None
        return functools.partial(self.penalty, **{name: values[name] for name in self.settings})


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
    ),
    "annealed": Method(
        title="AnnealedVAE",
        penalises="distance of the KL term from a growing capacity",
        source="Burgess et al. 2018, Eq. 8",
        defaults={"beta": 0.0, "gamma": 1000.0},
        penalty=capacity_distance,
        settings=("capacity", "capacity_steps"),
    ),
    "dipvae1": Method(
        title="DIP-VAE-I",
        penalises="distance of the covariance of mu from the identity",
        source="Kumar et al. 2018, Eq. 6",
        defaults={"beta": 1.0, "gamma": 10.0, "dip_ratio": 10.0},
        penalty=dip_vae_1,
        settings=("dip_ratio",),
    ),
    "dipvae2": Method(
        title="DIP-VAE-II",
        penalises="distance of the covariance of z from the identity",
        source="Kumar et al. 2018, Eq. 7",
        defaults={"beta": 1.0, "gamma": 10.0, "dip_ratio": 1.0},
        penalty=dip_vae_2,
        settings=("dip_ratio",),
    ),
    "btcvae": Method(
        title="beta-TCVAE",
        penalises="total correlation of z, by minibatch sampling",
        source="Chen et al. 2018, Eq. 4",
        defaults={"beta": 1.0, "gamma": 5.0},
        penalty=minibatch_total_correlation,
        settings=("num_images", "stratified"),
    ),
}

# methods that folders and tables have always told apart by gamma, and do not name
TOLD_BY_GAMMA = frozenset({"factorvae", "betavae"})
METHOD_SETTINGS = frozenset(name for method in METHODS.values() for name in method.settings)
