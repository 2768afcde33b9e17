"""The order of latents in every picture, and how their rows are labelled."""

import numpy as np
from numpy.typing import ArrayLike

from factorvae.config import DEAD_KL
from factorvae.plots.style import FAINT, INK, FigureLayout

MAX_ROWS = 16  # latents below each other; more than that stand in several columns
LABEL_WIDTH = 66  # pixels at the left of a row, for a latent's name and KL


def latent_order(kl: ArrayLike) -> np.ndarray:
    """Latent indices [latent_dim] by falling KL to the prior, so that dead ones come last."""
    return np.argsort(-np.asarray(kl, dtype=np.float64), kind="stable")


def dead_latents(kl: ArrayLike) -> np.ndarray:
    """Bool [latent_dim]: the latents whose KL to the prior (nats) is not above DEAD_KL."""
    return ~(np.asarray(kl, dtype=np.float64) > DEAD_KL)


def label_latent(
    layout: FigureLayout, right: float, middle: float, latent: int, kl: np.ndarray
) -> None:
    """'z3' over 'KL 2.41', or over 'dead', at the left of a row."""
    is_dead = dead_latents(kl)[latent]
    color = FAINT if is_dead else INK
    layout.text(right - 10, middle - 2, f"z{latent}", ha="right", color=color, size=10)
    note = f"dead, {kl[latent]:.3f}" if is_dead else f"KL {kl[latent]:.2f}"
    layout.text(right - 10, middle + 12, note, ha="right", color=FAINT, size=7.5)
