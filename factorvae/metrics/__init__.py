"""Disentanglement metrics: functions of arrays, or of a function from factors to codes.

`codes` are posterior means [N, D] and `factors` the indices of the factors' values [N, F]; each
function returns a dict of floats under the field's names and the arrays that explain them. A
standard error is named after its score with `_se`.
"""

from factorvae.metrics.active import active_latents
from factorvae.metrics.beta_vae import beta_vae_score
from factorvae.metrics.dci import dci
from factorvae.metrics.factor_vae import factor_vae_score
from factorvae.metrics.infomec import infomec
from factorvae.metrics.irs import irs
from factorvae.metrics.mig import mig
from factorvae.metrics.modularity import explicitness, modularity
from factorvae.metrics.sap import sap
from factorvae.metrics.total_correlation import (
    gaussian_total_correlation,
    minibatch_total_correlation,
)
from factorvae.metrics.udr import udr

__all__ = [
    "active_latents",
    "beta_vae_score",
    "dci",
    "explicitness",
    "factor_vae_score",
    "gaussian_total_correlation",
    "infomec",
    "irs",
    "mig",
    "minibatch_total_correlation",
    "modularity",
    "sap",
    "udr",
]
