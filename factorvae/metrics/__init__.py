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

# From interventions: (represent, factor_sizes, generator, **settings).
FROM_INTERVENTIONS = {
    "factor_vae_score": factor_vae_score,
    "beta_vae_score": beta_vae_score,
}
# From one sample: (codes, factors, **settings).
FROM_SAMPLE = {
    "mig": mig,
    "modularity": modularity,
    "infomec": infomec,
    "irs": irs,
}
# From a sample to fit and another to test: (codes, factors, codes_test, factors_test, **settings).
FROM_SPLIT = {
    "dci": dci,
    "sap": sap,
    "explicitness": explicitness,
}
# Without labels: (codes).
FROM_CODES = {
    "gaussian_total_correlation": gaussian_total_correlation,
}
METRICS = {**FROM_INTERVENTIONS, **FROM_SAMPLE, **FROM_SPLIT, **FROM_CODES}

__all__ = [
    "FROM_CODES",
    "FROM_INTERVENTIONS",
    "FROM_SAMPLE",
    "FROM_SPLIT",
    "METRICS",
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
