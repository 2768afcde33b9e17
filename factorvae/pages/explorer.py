"""The explorer: one HTML file in which a browser runs the model, and a hand moves its latents.

The page is put together of the files explorer_page.html, explorer.css and explorer*.js beside this
one and of a description of the model: its weights in float16, what is known of its latents, and a
dozen images. It loads nothing, neither from the network nor from the disk.
"""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from factorvae.config import DEAD_KL
from factorvae.datasets import Dataset, factors_of
from factorvae.metrics.information import entropy, equal_width_bins, mutual_information
from factorvae.models import VAE, conv_channels
from factorvae.objective import kl_per_latent, reparameterize
from factorvae.pages.traversal import (
    LIMIT,
    choose_images,
    image_name,
    response_lines,
    shape_factor,
    shape_names,
)
from factorvae.plots.latents import dead_latents, latent_order
from factorvae.plots.style import factor_value

# int [B] images -> mu and logvar, float [B, latent_dim] each.
Posterior = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

FILES = Path(__file__).parent
SCRIPTS = ("explorer_sprites.js", "explorer_images.js", "explorer.js")

NUM_IMAGES = 12
MARKED = (0.01, 0.99)  # quantiles of the aggregate posterior between which its range is marked
MOST_CHARTS = 8  # factors whose curves are shown at once
MOST_POINTS = 4  # values that are named each; more are a curve

# A latent is named after the factor of whose entropy it knows the largest share, if that is
# NAMED_FROM or more, and after a second one where its share is SECOND_FROM of the first or more.
NAMED_FROM = 0.1
SECOND_FROM = 0.6

# How the sets that the page can draw are painted: see explorer_sprites.js.
PAINTS = {"dsprites": "white", "color_dsprites": "colour", "noisy_dsprites": "noise"}


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
        dataset: images of the shape that the model takes. The page shows roles and curves where
            their factors are known, and sliders of the factors where it can draw the images.
        sample: images drawn at random, int [N]: they tell KL, ranges and mutual information.
        posterior: the model's, of images by index.
        title: the run, from `run_title`. Any text is shown as it is.
        base_index: images to start from; others are added to make NUM_IMAGES.
        seed: draws those others, the settings that curves average over, and the codes of ranges.
    """
    mu, logvar = posterior(sample)
    kl = kl_per_latent(torch.from_numpy(mu), torch.from_numpy(logvar)).numpy()
    ranges = marked_ranges(mu, logvar, seed)
    factors = factors_of(dataset, sample)
    shares = None if factors is None else known_shares(mu, factors)
    base = start_images(dataset, base_index, seed)
    codes = posterior(base)[0]
    description = {
        "dataset": dataset.name,
        "network": network_shape(vae),
        "deadKl": DEAD_KL,
        "limit": slider_limit(codes, ranges),
        "latents": [
            describe_latent(int(latent), kl, ranges, shares, dataset.factor_names)
            for latent in latent_order(kl)
        ],
        "images": describe_images(dataset, base, codes),
        "responses": None if factors is None else responses(dataset, mu, factors, posterior, seed),
        "drawing": drawing(dataset),
    }
    return fill_in(title, description, packed_weights(vae))


# --- the model -----------------------------------------------------------------------------------


def network_shape(vae: VAE) -> dict[str, object]:
    """What explorer_network.js has to know to read the weights."""
    channels, size, _ = vae.image_shape
    return {
        "size": size,
        "imageChannels": channels,
        "channels": conv_channels(size),
        "hidden": vae.encoder.hidden.out_features,
        "latents": vae.latent_dim,
    }


def packed_weights(vae: VAE) -> bytes:
    """All weights as little-endian float16, in explorer_network.js's order and layouts.

    The page keeps maps channels-last, so that each layer's inputs are put in that order here.
    """
    encoder, decoder = vae.encoder, vae.decoder
    parts: list[Tensor] = []
    for conv in encoder.convs:
        parts += [conv.weight.permute(0, 2, 3, 1), conv.bias]  # [C_out, 4, 4, C_in]
    flat = encoder.hidden.weight.unflatten(1, (-1, 4, 4)).permute(0, 2, 3, 1)
    parts += [flat, encoder.hidden.bias]  # [hidden, 4, 4, C]
    parts += [encoder.head.weight, encoder.head.bias]
    parts += [decoder.hidden.weight, decoder.hidden.bias]
    for part in (decoder.expand.weight, decoder.expand.bias):
        parts.append(part.unflatten(0, (-1, 4, 4)).movedim(0, 2))  # [4, 4, C(, hidden)]
    for upconv in decoder.upconvs:
        # Tap 3 - (2a + p) of a column leads from input i + a + p - 1 to output 2i + p.
        taps = upconv.weight.flip(2, 3).unflatten(3, (2, 2)).unflatten(2, (2, 2))
        taps = taps.permute(3, 5, 1, 2, 4, 0)  # [C_in, C_out, a, p, b, q] -> as the page wants
        parts += [taps, upconv.bias]  # [p, q, C_out, a, b, C_in]
    numbers = torch.cat([part.detach().reshape(-1).cpu() for part in parts])
    return numbers.numpy().astype("<f2").tobytes()


# --- its latents ---------------------------------------------------------------------------------


def marked_ranges(mu: np.ndarray, logvar: np.ndarray, seed: int) -> np.ndarray:
    """Quantiles MARKED of the aggregate posterior q(z), from one code of each image: [2, D].

    mu, logvar: [N, D].
    """
    eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(seed))
    z = reparameterize(torch.from_numpy(mu), torch.from_numpy(logvar), eps)
    return np.quantile(z.numpy(), MARKED, axis=0)


def known_shares(mu: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The share of each factor's entropy that each latent knows: [D, F], 0 for constant factors.

    mu: [N, D]; factors: int [N, F]. By 20 bins of equal width, as in MIG.
    """
    information, total = mutual_information(equal_width_bins(mu), factors), entropy(factors)
    return np.divide(information, total, out=np.zeros_like(information), where=total > 0)


def latent_role(shares: np.ndarray, names: Sequence[str]) -> str:
    """'mostly posX', 'posX and scale' or 'no one factor', from one latent's shares [F]."""
    order = np.argsort(-shares, kind="stable")
    best = order[0]
    if shares[best] < NAMED_FROM:
        return "no one factor"
    if len(order) > 1 and shares[order[1]] >= SECOND_FROM * shares[best]:
        return f"{names[best]} and {names[order[1]]}"
    return f"mostly {names[best]}"


def describe_latent(
    latent: int, kl: np.ndarray, ranges: np.ndarray, shares: np.ndarray | None, names: Sequence[str]
) -> dict[str, object]:
    """kl: [D]; ranges: [2, D]; shares: [D, F], None where factors are not known."""
    dead = bool(dead_latents(kl)[latent])
    told = shares is not None and not dead
    best = np.argsort(-shares[latent], kind="stable")[:2] if told else ()
    return {
        "index": latent,
        "kl": rounded(kl[latent]),
        "dead": dead,
        "low": rounded(ranges[0, latent]),
        "high": rounded(ranges[1, latent]),
        "role": latent_role(shares[latent], names) if told else "",
        "known": [[names[f], rounded(shares[latent, f])] for f in best if shares[latent, f] > 0.01],
    }


def slider_limit(codes: np.ndarray, ranges: np.ndarray) -> float:
    """How far sliders reach: at least LIMIT, and over all base codes [B, D] and ranges [2, D]."""
    farthest = max(LIMIT, np.abs(codes).max(), np.abs(ranges).max())
    return float(np.ceil(2 * farthest) / 2)


def responses(
    dataset: Dataset, mu: np.ndarray, factors: np.ndarray, posterior: Posterior, seed: int
) -> dict[str, object]:
    """Mean codes over each factor's values, one line for each shape where there are shapes.

    Measured on balanced settings where images are a full grid of factors, and otherwise on the
    sample: codes mu [N, D] of images with factors int [N, F].
    """
    space, group = dataset.factor_space, shape_factor(dataset.factor_space)
    groups = shape_names(dataset)
    described = []
    for factor, (name, size) in enumerate(
        zip(dataset.factor_names, dataset.factor_sizes, strict=True)
    ):
        if space is None:
            lines = conditional_means(mu, factors[:, factor], size)[None]
            values = range(size)
        else:
            lines = response_lines(
                lambda rows: posterior(space.index_of(rows))[0], dataset, factor, seed
            )
            values = space.values[factor]
        words = groups if factor == group else dataset.value_words.get(name, ())
        named = len(words) == size
        described.append(
            {
                "name": name,
                "labels": list(words) if named else [factor_value(value) for value in values],
                "points": named or size <= MOST_POINTS,
                "lines": rounded(lines),
            }
        )
    return {"groups": list(groups), "most": MOST_CHARTS, "factors": described}


def conditional_means(mu: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Mean of mu [N, D] over the images of each value int [N]: [size, D], nan where none is."""
    counts = np.bincount(values, minlength=size)[:, None]
    sums = np.stack([np.bincount(values, column, minlength=size) for column in mu.T], axis=1)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


# --- its images ----------------------------------------------------------------------------------


def start_images(dataset: Dataset, base_index: Sequence[int], seed: int) -> np.ndarray:
    """base_index and others, NUM_IMAGES in all where there are so many: int64 [B]."""
    count = min(NUM_IMAGES, len(dataset))
    others = choose_images(dataset, count, seed)
    both = np.concatenate([np.asarray(base_index, dtype=np.int64), others])
    _, first = np.unique(both, return_index=True)
    return both[np.sort(first)][: max(count, len(base_index))]


def describe_images(dataset: Dataset, base: np.ndarray, codes: np.ndarray) -> list[dict]:
    """Names, pictures, codes [B, D] of the images at base [B], and factors where they matter."""
    described = [
        {"name": image_name(dataset, index), "code": rounded(code, 4), "src": png_url(pixels)}
        for index, code, pixels in zip(base, codes, dataset.images(base).numpy(), strict=True)
    ]
    if drawing(dataset) is not None:
        for image, factors in zip(described, dataset.factor_space.factors_of(base), strict=True):
            image["factors"] = factors.tolist()
    return described


def png_url(pixels: np.ndarray) -> str:
    """A PNG inside an address, of uint8 [C, H, W] with one or three channels."""
    file = io.BytesIO()
    levels = np.moveaxis(pixels, 0, -1)
    Image.fromarray(levels[..., 0] if len(pixels) == 1 else levels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def drawing(dataset: Dataset) -> dict[str, object] | None:
    """How the page draws the dataset's images from their factors; None where it cannot."""
    space = dataset.factor_space
    if space is None or dataset.name not in PAINTS:
        return None
    group, names = shape_factor(space), shape_names(dataset)
    return {
        "paint": PAINTS[dataset.name],
        "names": list(space.names),
        "values": [list(values) for values in space.values],
        "labels": [
            list(names) if factor == group else [factor_value(value) for value in values]
            for factor, values in enumerate(space.values)
        ],
    }


# --- the file ------------------------------------------------------------------------------------


def rounded(values: np.ndarray, digits: int = 3) -> object:
    """Plain numbers, in lists as deep as the array; None for nan, which JSON has not."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim:
        return [rounded(each, digits) for each in values]
    return None if np.isnan(values) else round(float(values), digits)


def fill_in(title: str, description: Mapping[str, object], weights: bytes) -> str:
    """The page with everything inside. Names and titles from elsewhere stay text, whatever is in
    them: in HTML they are escaped, in the description no '<' is left that could end its element,
    and the page's policy lets a browser run no script but the two that are meant."""
    network = _read("explorer_network.js")
    script = "\n".join(_read(name) for name in SCRIPTS)
    style = _read("explorer.css")
    # Nothing may be loaded from anywhere, so that the page works, and tells no one, offline.
    policy = (
        f"default-src 'none'; script-src {_hash(network)} {_hash(script)}; worker-src blob:; "
        f"style-src {_hash(style)}; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": html.escape(title),
        "policy": html.escape(policy, quote=True),
        "style": style,
        "description": json.dumps(description, allow_nan=False).replace("<", "\\u003c"),
        "weights": base64.b64encode(weights).decode("ascii"),
        "network": network,
        "script": script,
    }
    # In one pass, for what is put in is not searched for places again.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _read("explorer_page.html"))


def _read(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """A script or style that a content security policy allows, by its text."""
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"
