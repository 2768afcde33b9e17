"""The explorer: one HTML file in which a browser runs the model, and a hand moves its latents.

The page is put together of the files explorer_*.html, .css and .js beside this one and of a
description of the model: its weights in float16, what is known of its latents, and a dozen images.
It loads nothing, neither from the network nor from the disk.
"""

import base64
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from factorvae.datasets import Dataset, FactorSpace
from factorvae.figures.factor_roles import choose_images, image_name, shape_factor, shape_names
from factorvae.figures.plots import dead_latents, latent_order
from factorvae.figures.responses import balanced_factors, factor_response
from factorvae.metrics import mig
from factorvae.models import VAE, conv_channels
from factorvae.objective import kl_per_latent, reparameterize

NUM_IMAGES = 12
LIMIT = 3.0  # sliders reach at least from -LIMIT to LIMIT
RANGE = (0.01, 0.99)  # quantiles of the aggregate posterior: the range that is marked
RESPONSE_IMAGES = 12_288  # encoded for one panel of curves
MOST_SETTINGS = 24  # averaged over in a curve, a multiple of small factors' sizes

# A latent is named after a factor where it knows this share of the factor's entropy, and after a
# second one where that share is not much less than the best.
NAMED_FROM = 0.1
SECOND_FROM = 0.6

Posterior = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def explorer_page(
    vae: VAE,
    dataset: Dataset,
    sample: np.ndarray,
    posterior: Posterior,
    *,
    title: str = "",
    base_index: Sequence[int] = (),
    seed: int = 0,
) -> str:
    """The page's text.

    Args:
        vae: the model, on any device.
        dataset: images of the shape that the model takes. Roles and curves are on the page where
            its factors are known, and sliders of the factors where the page can draw it: dSprites.
        sample: images drawn at random, int [N], that tell KL, ranges and mutual information.
        posterior: images int [B] -> mu and logvar, float [B, latent_dim] each.
        title: the run, from `run_title`. Any text is shown as it is.
        base_index: images to start from; others are added to make NUM_IMAGES.
        seed: draws those others, and the settings that curves average over.
    """
    mu, logvar = (torch.from_numpy(np.asarray(part)) for part in posterior(sample))
    kl = kl_per_latent(mu, logvar).numpy()
    images = base_images(dataset, base_index, seed)
    codes = posterior(images)[0]
    low, high = marked_ranges(mu, logvar, seed)
    description = {
        "title": title,
        "dataset": dataset.name,
        "network": network_shape(vae),
        "latents": [
            {
                "index": int(latent),
                "kl": _rounded(kl[latent]),
                "dead": bool(dead_latents(kl)[latent]),
                "low": _rounded(low[latent]),
                "high": _rounded(high[latent]),
                "role": role,
            }
            for latent, role in zip(
                latent_order(kl),
                np.array(latent_roles(mu.numpy(), _factors_of(dataset, sample), dataset))[
                    latent_order(kl)
                ].tolist(),
                strict=True,
            )
        ],
        "limit": slider_limit(codes, low, high),
        "images": [
            {
                "name": image_name(dataset, index),
                "code": _rounded(code),
                "src": _png_url(pixels.numpy()),
            }
            for index, code, pixels in zip(images, codes, dataset.images(images), strict=True)
        ],
        "responses": responses(dataset, sample, mu.numpy(), posterior, seed),
        "drawing": drawing(dataset),
    }
    return _fill_in(title, description, packed_weights(vae))
