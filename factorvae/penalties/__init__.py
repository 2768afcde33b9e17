"""The methods, as what each adds to the VAE's loss: `recon + beta * kl + gamma * penalty`.

A penalty is a pure function of (mu, logvar, z, step) and of settings named after fields of
`TrainConfig`. A further method is such a function, a line of `PENALTIES`, and an entry of
`factorvae.methods.METHODS`.
"""

import functools
from collections.abc import Callable, Mapping

from torch import Tensor

from factorvae.methods import METHODS
from factorvae.penalties.annealed import capacity_distance
from factorvae.penalties.beta_tcvae import minibatch_total_correlation
from factorvae.penalties.dip_vae import dip_vae_1, dip_vae_2

# of mu, logvar, z [B, latent_dim], float32, and the steps done, int64 []; gives a float32 []
Penalty = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# by method; the others' penalty is estimated by the discriminator, or there is none
PENALTIES: dict[str, Callable[..., Tensor]] = {
    "annealed": capacity_distance,
    "dipvae1": dip_vae_1,
    "dipvae2": dip_vae_2,
    "btcvae": minibatch_total_correlation,
}


def bind_penalty(method: str, values: Mapping[str, object]) -> Penalty | None:
    """The method's penalty with its settings taken from `values`; None where it has no function."""
    if method not in PENALTIES:
        return None
    settings = {name: values[name] for name in METHODS[method].settings}
    return functools.partial(PENALTIES[method], **settings)
