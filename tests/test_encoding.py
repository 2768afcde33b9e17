"""The table of posteriors, and encoding only a window of images that are mostly black."""

import numpy as np
import pytest
import torch

from factorvae import encoding
from factorvae.datasets import Dataset
from factorvae.datasets.table import Pixels
from factorvae.encoding import EncodedDataset
from factorvae.encoding.windows import Window, WindowEncoder, window_batches, windows_of
from factorvae.errors import UserError
from factorvae.metrics.interventions import sample_factors
from factorvae.models import VAE, Encoder


class Counting:
    """A table that counts how often each image is asked for as a network's input."""

    def __init__(self, table):
        self.table, self.image_shape = table, table.image_shape
        self.asked = np.zeros(len(table), dtype=int)

    def __len__(self):
        return len(self.table)

    def images(self, index):
        return self.table.images(index)

    def batch(self, index, device="cpu"):
        np.add.at(self.asked, np.asarray(index), 1)
        return self.table.batch(index, device)


def counted(dataset):
    table = Counting(dataset.table)
    return Dataset(dataset.name, dataset.source, table, dataset.factor_space), table


def make_vae(image_shape):
    """Weights as drawn, but biases that a black image's answer shows."""
    vae = VAE(image_shape, 4, 16, torch.Generator().manual_seed(0)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=generator)
    return vae


@torch.inference_mode()
def plainly_encoded(vae, dataset, index):
    mu, logvar = vae.encode(dataset.batch(index))
    return mu.numpy(), logvar.numpy()


def noise_of(sprites, channels):
    """As many images, with no black to leave out."""
    shape = (len(sprites), channels, 64, 64)
    pixels = np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)
    return Dataset("noise", "drawn", Pixels(pixels))


class AddsOne(Encoder):
    def forward(self, x):
        mu, logvar = super().forward(x)
        return mu + 1, logvar


def test_an_encoder_of_ones_own_is_asked_itself(sprites, monkeypatch):
    monkeypatch.setattr(encoding, "WINDOWED_FROM", 1)
    own = VAE((1, 64, 64), 4, encoder=AddsOne((1, 64, 64), 4, 16)).eval()
    index = np.arange(100)
    means = EncodedDataset(own, sprites).codes(index)
    np.testing.assert_allclose(means, plainly_encoded(own, sprites, index)[0], atol=1e-5)


def test_each_image_is_encoded_once_and_only_those_asked_for(sprites):
    dataset, table = counted(sprites)
    known = EncodedDataset(make_vae((1, 64, 64)), dataset, workers=2)
    first = known.codes(np.array([3, 5, 3, 200]))
    again = known.codes(np.array([5, 200, 3, 7]))
    np.testing.assert_array_equal(again[:3], first[[1, 3, 0]])
    assert np.flatnonzero(table.asked).tolist() == [3, 5, 7, 200]
    assert known.num_encoded == 4
    known.encode(np.arange(len(dataset)))
    mu, logvar = known.posterior(np.arange(len(dataset)))
    assert (table.asked == 1).all()
    expected = plainly_encoded(known.vae, sprites, np.arange(len(dataset)))
    np.testing.assert_allclose(mu, expected[0], atol=1e-5)
    np.testing.assert_allclose(logvar, expected[1], atol=1e-5)


def test_represent_is_by_factors(sprites):
    known = EncodedDataset(make_vae((1, 64, 64)), sprites)
    factors = sample_factors((20,), sprites.factor_sizes, np.random.default_rng(0))
    codes = known.represent(factors)
    np.testing.assert_array_equal(codes, known.codes(sprites.factor_space.index_of(factors)))
    assert codes.shape == (20, 4) and codes.dtype == np.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_windowed_codes_are_the_plain_ones(sprites, monkeypatch, channels):
    monkeypatch.setattr(encoding, "WINDOWED_FROM", 1)
    calls = []
    encode = WindowEncoder.encode
    monkeypatch.setattr(
        WindowEncoder, "encode", lambda *args: calls.append(args[2]) or encode(*args)
    )
    pixels = sprites.images(np.arange(len(sprites))).numpy().repeat(channels, axis=1)
    pixels[:, channels - 1] //= 2  # colours differ
    pixels[17] = 0  # a black image has a window too
    dataset = Dataset("sprites", "drawn", Pixels(pixels))
    vae = make_vae(dataset.image_shape)
    mu, logvar = EncodedDataset(vae, dataset, workers=2).posterior(np.arange(len(dataset)))
    assert len(set(calls)) > 4
    expected = plainly_encoded(vae, dataset, np.arange(len(dataset)))
    assert expected[0].std() > 0.01
    np.testing.assert_allclose(mu, expected[0], atol=2e-6)
    np.testing.assert_allclose(logvar, expected[1], atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_without_black_are_encoded_plainly(sprites, monkeypatch, channels):
    monkeypatch.setattr(encoding, "WINDOWED_FROM", 1)
    monkeypatch.delattr(WindowEncoder, "encode")  # no use of it can work
    dataset = noise_of(sprites, channels)
    vae, index = make_vae(dataset.image_shape), np.arange(100)
    mu, _ = EncodedDataset(vae, dataset).posterior(index)
    np.testing.assert_allclose(mu, plainly_encoded(vae, dataset, index)[0], atol=1e-5)


def test_few_images_are_encoded_plainly(sprites, monkeypatch):
    monkeypatch.delattr(WindowEncoder, "encode")
    vae = make_vae((1, 64, 64))
    mu, _ = EncodedDataset(vae, sprites).posterior(np.arange(5))
    np.testing.assert_allclose(mu, plainly_encoded(vae, sprites, np.arange(5))[0], atol=1e-5)


def test_windows_hold_all_that_is_not_black():
    images = torch.zeros(4, 2, 32, 32, dtype=torch.uint8)
    images[0, 0, 5, 9] = 1  # rows 0-8, columns 8-16
    images[1, 1, 31, 0] = images[1, 0, 16, 31] = 255  # the second channel counts as well
    images[2] = 7
    expected = [[0, 8, 8, 16], [16, 32, 0, 32], [0, 32, 0, 32], [0, 8, 0, 8]]
    assert windows_of(images).tolist() == expected


def test_batches_share_a_window_and_hold_every_image_once():
    rows = np.random.default_rng(0).integers(0, 2, (100, 2)) * 8
    marked = np.stack([rows[:, 0], rows[:, 0] + 8, rows[:, 1], rows[:, 1] + 8], axis=1)
    batches = window_batches(marked, 16)
    assert sorted(np.concatenate([places for places, _ in batches])) == list(range(100))
    for places, window in batches:
        assert len(places) <= 16
        assert {Window(*row) for row in marked[places].tolist()} == {window}


def test_reached_outputs_are_those_that_change():
    """Against a convolution of ones: an output differs from zero where it sees the window."""
    weight = torch.ones(1, 1, 4, 4)
    for window in (Window(0, 8, 8, 16), Window(24, 32, 0, 32), Window(8, 16, 16, 24)):
        image = torch.zeros(1, 1, 32, 32)
        window.of(image).fill_(1)
        answer = torch.nn.functional.conv2d(image, weight, stride=2, padding=1)[0, 0]
        touched = torch.zeros(16, 16)
        window.reached(16).of(touched).fill_(1)
        assert torch.equal(answer > 0, touched > 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_codes_on_cuda_are_those_of_the_cpu(sprites):
    vae, index = make_vae((1, 64, 64)), np.arange(len(sprites))
    expected = plainly_encoded(vae, sprites, index)[0]
    known = EncodedDataset(vae.to("cuda"), sprites, "cuda")
    np.testing.assert_allclose(known.codes(index), expected, atol=1e-4)
    assert known.num_encoded == len(sprites)


@pytest.mark.parametrize("place", [0, -1])  # the mean's and the log variance's bias
@pytest.mark.parametrize("value", [1e20, -1e35, np.inf, np.nan])
def test_posteriors_beyond_all_measure_are_an_error_that_names_the_model(sprites, place, value):
    vae = make_vae((1, 64, 64))
    with torch.no_grad():
        vae.encoder.head.bias[place] = value
    known = EncodedDataset(vae, sprites, name="runs/a/ckpt.pt")
    with pytest.raises(UserError, match="^runs/a/ckpt.pt gives 3 of 3 images a mean or variance"):
        known.codes(np.arange(3))
