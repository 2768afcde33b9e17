"""Shapes, sizes and layers of the networks."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from factorvae.layers import DownConv, UpConv
from factorvae.models import VAE, Discriminator
from factorvae.objective import total_correlation


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_vae_shapes(size, channels):
    vae = VAE((channels, size, size), latent_dim=7, hidden_dim=16)
    x = torch.rand(2, channels, size, size)
    mu, logvar = vae.encode(x)
    logits = vae.decode(mu)
    assert mu.shape == logvar.shape == (2, 7)
    assert logits.shape == x.shape


def test_a_batch_of_one_keeps_its_shape():
    vae = VAE((1, 64, 64), 3, 16)
    mu, _ = vae.encode(torch.rand(1, 1, 64, 64))
    assert mu.shape == (1, 3)
    assert vae.decode(mu).shape == (1, 1, 64, 64)
    assert Discriminator(3, 1, 8)(mu).shape == (1, 2)


def test_the_papers_layers_on_dsprites():
    vae = VAE((1, 64, 64), 10, 128)
    convs = [tuple(conv.weight.shape) for conv in vae.encoder.convs]
    assert convs == [(32, 1, 4, 4), (32, 32, 4, 4), (64, 32, 4, 4), (64, 64, 4, 4)]
    upconvs = [tuple(conv.weight.shape) for conv in vae.decoder.upconvs]
    assert upconvs == [(64, 64, 4, 4), (64, 32, 4, 4), (32, 32, 4, 4), (32, 1, 4, 4)]
    assert count(Discriminator(10)) == 11 * 1000 + 5 * 1001 * 1000 + 1001 * 2


def test_weights_are_the_generators():
    def make(seed):
        return VAE((1, 32, 32), 4, 8, torch.Generator().manual_seed(seed)).state_dict()

    one, same, other = make(0), make(0), make(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["encoder.head.weight"], other["encoder.head.weight"])
    assert not one["encoder.head.bias"].any()


def test_a_discriminator_that_standardizes_sees_no_scale_and_no_mean(generator):
    codes = torch.randn(64, 4, generator=generator)
    other = codes * torch.tensor([0.1, 1.0, 5.0, 1.0]) + 2
    disc = Discriminator(4, 2, 16, generator, standardizes=True)
    assert torch.allclose(disc(other), disc(codes), atol=1e-5)
    disc.standardizes = False
    assert not torch.allclose(disc(other), disc(codes), atol=0.1)
    # so that a latent gains nothing by its scale: the gradient along it is 0
    codes.requires_grad_()
    disc.standardizes = True
    total_correlation(disc(codes)).backward()
    along = ((codes - codes.mean(dim=0)) * codes.grad).sum(dim=0)
    assert (along.abs() < 1e-5).all() and (codes.grad.abs().amax(dim=0) > 1e-5).all()


def test_sampling_is_not_switched_by_training_mode():
    vae = VAE((1, 32, 32), 4, 8)
    x = torch.rand(2, 1, 32, 32)
    assert torch.equal(vae.train().encode(x)[0], vae.eval().encode(x)[0])


@pytest.mark.parametrize("out_channels", [1, 3, 32])
def test_upconv_is_the_transposed_convolution_forward_and_backward(out_channels):
    generator = torch.Generator().manual_seed(0)
    layer = UpConv(8, out_channels, relu=False).double()
    x = torch.randn(3, 8, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(3, out_channels, 10, 10, generator=generator, dtype=torch.float64)
    ours = layer(x)
    plain = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(ours, plain)
    inputs = [x, layer.weight, layer.bias]
    for one, other in zip(
        torch.autograd.grad(ours, inputs, grad),
        torch.autograd.grad(plain, inputs, grad),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_bfloat16_input_computes_in_bfloat16_and_returns_float32():
    vae = VAE((1, 64, 64), 10, 128, torch.Generator().manual_seed(0))
    x = torch.rand(4, 1, 64, 64)
    mu, _ = vae.encode(x)
    mu_bf16, _ = vae.encode(x.bfloat16())
    assert mu_bf16.dtype == torch.float32
    assert not torch.equal(mu, mu_bf16)
    torch.testing.assert_close(mu, mu_bf16, atol=0.02, rtol=0.05)


@pytest.mark.parametrize("layer", [DownConv(1, 32), UpConv(32, 1)])
def test_maps_of_one_channel_convolutions_are_channels_last_on_cuda(layer):
    """As PyTorch would choose there; fake tensors have shapes and strides, but no device."""
    with FakeTensorMode():
        shape = layer.weight.shape
        weight = torch.empty_strided(shape, layer.weight.stride(), device="cuda")
        x = torch.empty(8, 1, 64, 64, device="cuda")  # images, or the gradient of their logits
        out = F.conv2d(x, weight, stride=2, padding=1)
        usual = F.conv2d(x, torch.empty(shape, device="cuda"), stride=2, padding=1)
    assert out.shape == (8, 32, 32, 32)
    assert out.stride() == (32 * 32 * 32, 1, 32 * 32, 32)
    assert usual.stride() == (32 * 32 * 32, 32 * 32, 32, 1)


@pytest.mark.parametrize("layer", [DownConv(1, 32), UpConv(32, 1)])
def test_strides_of_one_channel_weights_are_kept_and_change_no_value(layer):
    for twin in (layer, copy.deepcopy(layer), layer.to(memory_format=torch.channels_last)):
        assert twin.weight.stride() == (16, 1, 4, 1)
        assert twin.weight.bfloat16().stride() == (16, 1, 4, 1)
    x = torch.randn(4, layer.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = layer(x)
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.contiguous_format)
    torch.testing.assert_close(ours, layer(x))
