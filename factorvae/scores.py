"""The scores that `evaluate.py` knows: their names, and how tables show them."""

from dataclasses import dataclass

from factorvae.errors import UserError


@dataclass(frozen=True)
class Score:
    """One number of a measure.

    name: in files. title: in a table of one model. heading: in a table of several. headline:
    whether a README's table has it without being asked for it.
    """

    name: str
    measure: str
    title: str
    heading: str
    decimals: int = 3
    headline: bool = False


SCORES = (
    Score("factor_vae_score", "factor_vae_score", "FactorVAE score", "FactorVAE", headline=True),
    Score("beta_vae_score", "beta_vae_score", "BetaVAE score", "BetaVAE"),
    Score("mig", "mig", "MIG", "MIG", headline=True),
    Score("mig_knn", "mig", "MIG without bins", "MIG (kNN)"),
    Score("disentanglement", "dci", "DCI disentanglement", "DCI D", headline=True),
    Score("completeness", "dci", "DCI completeness", "DCI C", headline=True),
    Score("informativeness", "dci", "DCI informativeness", "DCI I", headline=True),
    Score("sap", "sap", "SAP, discrete", "SAP", headline=True),
    Score("sap_continuous", "sap", "SAP, continuous", "SAP (R2)"),
    Score("modularity", "modularity", "Modularity", "Modularity"),
    Score("explicitness", "explicitness", "Explicitness", "Explicit."),
    Score("irs", "irs", "IRS", "IRS"),
    Score("infom", "infomec", "InfoMEC modularity", "InfoM"),
    Score("infoe", "infomec", "InfoMEC explicitness", "InfoE"),
    Score("infoc", "infomec", "InfoMEC compactness", "InfoC"),
    Score("recon_loss", "losses", "Reconstruction loss", "Recon", 2, headline=True),
    Score("kl", "losses", "KL to the prior", "KL", 2),
    Score("elbo", "losses", "ELBO", "ELBO", 2),
    Score("num_active", "losses", "Active latents, by KL", "Active", 0, headline=True),
    Score("num_active_std", "losses", "Active latents, by spread", "Act. std", 0),
    Score("gaussian_total_correlation", "gaussian_total_correlation", "TC, Gaussian", "TC Gauss"),
    Score(
        "gaussian_total_correlation_sampled",
        "gaussian_total_correlation",
        "TC, Gaussian, of samples",
        "TC G. smp.",
    ),
    Score(
        "discriminator_total_correlation",
        "discriminator_total_correlation",
        "TC, discriminator",
        "TC discr.",
    ),
    Score(
        "total_correlation_weighted",
        "minibatch_total_correlation",
        "TC, minibatch-weighted",
        "TC MWS",
    ),
    Score(
        "total_correlation_stratified",
        "minibatch_total_correlation",
        "TC, minibatch-stratified",
        "TC MSS",
    ),
    Score("udr", "udr", "UDR", "UDR", headline=True),
)
MEASURE_NAMES = tuple(dict.fromkeys(score.measure for score in SCORES))


def check_names(measures: tuple[str, ...] | None) -> None:
    """UserError for a name that is no measure's."""
    for name in measures or ():
        if name not in MEASURE_NAMES:
            raise UserError(f"unknown metric {name}; known are {', '.join(MEASURE_NAMES)}")
