"""What pictures call a run, what runs share, and the columns of their logs."""

from collections.abc import Sequence

from factorvae.errors import printable
from factorvae.methods import METHODS, TOLD_BY_GAMMA
from factorvae.setting import Setting, setting_value, told_fields

TITLED = ("method", "beta", "gamma", "capacity", "steps")  # in the title of every setting
COLUMN_TITLES = {  # of a run's log
    "recon": "Reconstruction loss / nats",
    "kl": "KL to the prior / nats",
    "elbo": "ELBO / nats",
    "tc": "Total correlation, estimated / nats",
    "disc_accuracy": "Discriminator accuracy",
    "penalty": "Penalty, before γ",
}


def run_title(
    dataset: str,
    step: int,
    beta: float,
    gamma: float,
    method: str = "factorvae",
    penalty: str | None = None,
) -> str:
    """The line under every heading: 'FactorVAE on dsprites, step 20,000, β = 1, γ = 6.4'.

    penalty: the name of one that a notebook gave in place of the method's.
    """
    if penalty is not None:
        model = f"VAE with {printable(str(penalty))}"
    elif gamma > 0:
        model = METHODS[method].title.replace("beta", "β")
    else:
        model = "VAE" if beta == 1 else "β-VAE"
    if len(dataset) > 32:
        dataset = "…" + dataset[-31:]  # the end of a folder's path says most
    return f"{model} on {dataset}, step {step:,}, β = {beta:g}, γ = {gamma:g}"


def setting_title(setting: Setting, others: Sequence[str] = ()) -> str:
    """What runs that differ by their seed share: 'β-TCVAE, β = 1, γ = 5, lr 0.001, 20,000 steps'.

    others: the fields that are told besides those of TITLED.
    """
    method = setting["method"]
    parts = [] if method in TOLD_BY_GAMMA else [METHODS[method].title.replace("beta", "β")]
    signs = {"beta": "β", "gamma": "γ"}
    if "capacity" in METHODS[method].settings:
        signs["capacity"] = "C"
    parts += [f"{sign} = {setting_value(setting[name])}" for name, sign in signs.items()]
    return ", ".join([*parts, *told_fields(setting, others), f"{setting['steps']:,} steps"])
