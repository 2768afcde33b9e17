"""Layers that compute in the dtype of their input, their weights staying float32.

`DownConv(x.bfloat16())` is thus a bfloat16 convolution with float32 master weights, said by the
caller in plain sight. All images are channels-last, as the convolutions of CPU and GPU want them.
On CUDA the convolutions are kernels of our own where these can be compiled.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from factorvae.device import compiles_kernels, multiplies_in_tf32

# What the kernels take: channels of the smaller map, a power of 2, and numbers of a map of which
# 32 times as many are still counted in 32 bits.
MOST_CHANNELS, LARGEST_MAP = 128, 2**26


class Linear(nn.Linear):
    """`nn.Linear` in the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class DownConv(nn.Conv2d):
    """4x4 convolution that halves height and width, and ReLU.

    [B, C_in, H, W] -> [B, C_out, H/2, W/2]
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1)
        channels_last_(self)

    def forward(self, x: Tensor) -> Tensor:
        if kernels_serve(x, self.weight):
            from factorvae import cuda_convs  # here: Triton is not everywhere

            return cuda_convs.DownConvReLU.apply(x, self.weight, self.bias)
        return F.relu_(self._conv_forward(x, self.weight.to(x.dtype), self.bias.to(x.dtype)))


class UpConv(nn.ConvTranspose2d):
    """4x4 transposed convolution that doubles height and width, and ReLU unless that is left out.

    [B, C_in, H, W] -> [B, C_out, 2H, 2W]
    """

    def __init__(self, in_channels: int, out_channels: int, relu: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1)
        channels_last_(self)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        if kernels_serve(x, self.weight):
            from factorvae import cuda_convs

            return cuda_convs.UpConv.apply(x, self.weight, self.bias, self.relu)
        x = _UpConv.apply(x, self.weight.to(x.dtype), self.bias.to(x.dtype))
        return F.relu_(x) if self.relu else x


def kernels_serve(x: Tensor, weight: Tensor) -> bool:
    """Whether `factorvae.cuda_convs` is to convolve x by these weights of a layer.

    Not where float32 is to be exact, nor for layers unlike the paper's: the library does.
    """
    channels = len(weight)
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cuda"
        and (x.dtype == torch.bfloat16 or (x.dtype == torch.float32 and multiplies_in_tf32()))
        and x.dim() == 4
        and x.shape[2] % 2 == x.shape[3] % 2 == 0
        and channels <= MOST_CHANNELS
        and channels & (channels - 1) == 0
        and 0 < x.numel() < LARGEST_MAP
        and compiles_kernels(x.device)
    )


def channels_last_(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Lay out the weights of a layer to or from one channel so that its maps are channels-last.

    Their memory is the same either way, and PyTorch takes the usual strides for those of NCHW: it
    would copy the maps. Clones and casts keep the strides.
    """
    weight = layer.weight
    if weight.shape[1] == 1:
        _, _, height, width = weight.shape
        layer.weight.data = weight.data.as_strided(weight.shape, (height * width, 1, width, 1))


class _UpConv(torch.autograd.Function):
    """Transposed convolution, its gradients taken as those of the convolution it transposes.

    Two of the library's own paths on the CPU are several times slower than the arithmetic asks:
    the gradient of a transposed convolution's bias, and a forward pass to one or three channels.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(x, weight)
        if x.device.type == "cpu" and weight.shape[1] <= 4:
            return _upconv_by_matmul(x, weight) + bias[:, None, None]
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN001
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = F.conv2d(grad, weight, stride=2, padding=1) if ctx.needs_input_grad[0] else None
        grad_weight = torch.ops.aten.convolution_backward(
            x, grad, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
        )[1]
        return grad_x, grad_weight, grad.sum((0, 2, 3))


def _upconv_by_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """One matrix product for all 16 taps, then the four overlapping 2x2 blocks added up."""
    B, C_in, H, W = x.shape
    C = weight.shape[1]
    pixels = x.permute(0, 2, 3, 1).reshape(-1, C_in)  # [B*H*W, C_in]
    taps = weight.permute(1, 2, 3, 0).reshape(C * 16, C_in)  # [C*4*4, C_in]
    # tap (2*i + p, 2*j + q) of the input pixel (h, w) lands on (2*(h + i) + p, 2*(w + j) + q)
    parts = (taps @ pixels.t()).view(C, 2, 2, 2, 2, B, H, W)  # [C, i, p, j, q, B, H, W]
    canvas = x.new_zeros(C, 2, 2, B, H + 1, W + 1)  # [C, p, q, B, H+1, W+1]
    for i in range(2):
        for j in range(2):
            canvas[..., i : i + H, j : j + W] += parts[:, i, :, j]
    full = canvas.permute(3, 0, 4, 1, 5, 2).reshape(B, C, 2 * H + 2, 2 * W + 2)
    return full[..., 1:-1, 1:-1]  # the padding of one pixel on each side falls off
