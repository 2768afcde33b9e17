"""The kernels of `factorvae.cuda_convs` against the library's convolutions.

    TRITON_INTERPRET=1 python -m tests.convolutions

compares them without a GPU, as Triton's interpreter carries them out.
"""

from functools import partial

import torch
from torch.nn import functional as F

# C_high, C_low, h, B: every layer of the networks, rows that fill no block, and sides that differ
LAYERS = [(1, 32, 8, 3), (3, 32, 4, 5), (32, 32, 4, 2), (32, 64, 4, 3), (64, 64, 2, 5)]


def channels_last(*shape, generator, device, dtype=torch.float32):
    x = torch.randn(shape, generator=generator).to(device, dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def outputs_and_gradients(convolve, inputs, grad):
    """What `convolve` gives of (x, weight, bias), and the gradients of all three."""
    y = convolve(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


def compare(device, dtype, tolerance, layers=LAYERS):
    """Raise AssertionError where a kernel's result is not the library's, in float64."""
    from factorvae import cuda_convs

    generator = torch.Generator().manual_seed(0)
    for C_high, C_low, h, B in layers:
        w = h + 2
        weight = torch.randn(C_low, 4, 4, C_high, generator=generator).to(device)
        weight = weight.permute(0, 3, 1, 2).requires_grad_()
        low = channels_last(B, C_low, h, w, generator=generator, device=device, dtype=dtype)
        size = B, C_high, 2 * h, 2 * w
        high = channels_last(*size, generator=generator, device=device, dtype=dtype)
        for kind, relu in (("down", True), ("up", True), ("up", False)):
            x, C = (high, C_low) if kind == "down" else (low, C_high)
            bias = torch.randn(C, generator=generator).to(device).requires_grad_()
            grad = torch.randn_like(low if kind == "down" else high)
            inputs = x, weight, bias
            if kind == "down":
                kernels = cuda_convs.DownConvReLU.apply
            else:
                kernels = partial(_up, cuda_convs.UpConv.apply, relu)
            ours = outputs_and_gradients(kernels, inputs, grad)

            # the reference takes our side of every ReLU, where rounding may decide it
            gate = ours[0] > 0 if relu else torch.ones_like(ours[0], dtype=torch.bool)
            library = F.conv2d if kind == "down" else F.conv_transpose2d
            exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
            reference = partial(_gated, library, gate)
            expected = outputs_and_gradients(reference, exact, grad.double())
            for name, one, other in zip(("y", "x", "weight", "bias"), ours, expected, strict=True):
                off = (one.double() - other).norm() / other.norm()
                assert off < tolerance, (kind, relu, C_high, C_low, name, float(off))
            assert ours[2].stride() == weight.stride()  # or autograd would copy it
            assert ours[0].is_contiguous(memory_format=torch.channels_last)


def check_what_is_no_number(device, dtype):
    """A NaN in a weight is in the output and in the gradients, as ReLU hands it on."""
    from factorvae import cuda_convs

    weight = torch.ones(32, 16, 4, 4, device=device).to(memory_format=torch.channels_last)
    weight[5] = torch.nan
    for kind in ("down", "up"):
        x = torch.ones(2, 16 if kind == "down" else 32, 4, 4, device=device, dtype=dtype)
        inputs = [x.requires_grad_(), weight.requires_grad_(), torch.ones(32, device=device)]
        if kind == "down":
            y = cuda_convs.DownConvReLU.apply(*inputs)
            assert y[:, 5].isnan().all() and not y[:, :5].isnan().any()
        else:
            y = cuda_convs.UpConv.apply(*inputs[:2], inputs[2][:16], True)
            assert y.isnan().all()
        grads = torch.autograd.grad(y.sum(), inputs[:2])
        assert grads[0].isnan().any()
        assert kind == "up" or not grads[1][5].isnan().any()  # the gradient itself is a number
        assert kind == "up" or (grads[1][5] != 0).any()


def _up(convolve, relu, x, weight, bias):
    return convolve(x, weight, bias, relu)


def _gated(convolve, gate, *inputs):
    return torch.where(gate, convolve(*inputs, stride=2, padding=1), 0)


if __name__ == "__main__":
    compare("cpu", torch.float32, 1e-5)
    check_what_is_no_number("cpu", torch.float32)
    print("all agree")
