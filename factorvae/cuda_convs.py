"""The 4x4 convolutions of stride 2 on CUDA, as Triton kernels.

At these sizes the library's take 7 to 47 microseconds each, and copies to other layouts and
formats around them. These read and write channels-last maps as they are, have bias, ReLU and the
ReLU's gradient within, and sum in one order always: the same bits every time.

A convolution relates a *low* map [B, C_low, h, w] and a *high* one [B, C_high, 2h, 2w] by weights
[C_low, C_high, 4, 4]: low[i, j] goes with high[2i + u - 1, 2j + v - 1] by the tap (u, v). `down`
sums over the high map and `up` over the low one, each the gradient of the other; `weight_grad` sums
over both. Maps and weights lie channels-last. Products are of the maps' dtype, float32 in TF32, and
sums are float32.

A `gate` is what a ReLU gave where a map is the gradient behind it: where the gate is 0, the map
counts as 0.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

FEW_CHANNELS = 4  # of a high map, of which all four neighbours go into one block of `up`
# Sizes of blocks were tried on an H200 with four streams at work, as in a sweep.
PROGRAMS, PROGRAMS_OF_SUM = 128, 256  # at a time that are aimed at; it has 132 multiprocessors


class DownConvReLU(torch.autograd.Function):
    """ReLU of `down`: x [B, C_high, 2h, 2w] -> [B, C_low, h, w]."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight = _channels_last(x), _channels_last(weight)
        with torch.cuda.device_of(x):
            y = down(x, weight, bias, relu=True)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight, y = ctx.saved_tensors
        grad = _channels_last(grad)
        grad_x = up(grad, weight, gate=y) if ctx.needs_input_grad[0] else None
        return grad_x, *weight_grad(x, grad, weight, gate=y, gradient="low")


class UpConv(torch.autograd.Function):
    """`up`, or its ReLU: x [B, C_low, h, w] -> [B, C_high, 2h, 2w]."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        x, weight = _channels_last(x), _channels_last(weight)
        with torch.cuda.device_of(x):
            y = up(x, weight, bias, relu)
        ctx.save_for_backward(x, weight, y if relu else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight, gate = ctx.saved_tensors
        grad = _channels_last(grad)
        grad_x = down(grad, weight, gate=gate) if ctx.needs_input_grad[0] else None
        return grad_x, *weight_grad(grad, x, weight, gate=gate, gradient="high"), None


def down(
    high: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    relu: bool = False,
    gate: Tensor | None = None,
) -> Tensor:
    """Convolution: [B, C_high, 2h, 2w] -> [B, C_low, h, w].

    bias: of C_low channels. relu: of the result. gate: of `high`.
    """
    B, C_high, H, W = high.shape
    C_low = len(weight)
    low = _empty_map(high, B, C_low, H // 2, W // 2)
    rows = B * (H // 2) * (W // 2)
    block_n = _block(C_low, 64)
    columns = triton.cdiv(C_low, block_n)
    block_m = _rows_of_block(rows, columns, most=64)
    _down_kernel[triton.cdiv(rows, block_m), columns](
        *(high, _or(gate, high), weight, _or(bias, weight), low, rows, H // 2, W // 2),
        **dict(C_LOW=C_low, C_HIGH=C_high, GATED=gate is not None),
        **dict(BIASED=bias is not None, RELU=relu),
        **dict(BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=_block_k(16 * C_high, high, 128)),
    )
    return low


def up(
    low: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    relu: bool = False,
    gate: Tensor | None = None,
) -> Tensor:
    """Transposed convolution: [B, C_low, h, w] -> [B, C_high, 2h, 2w].

    bias: of C_high channels. relu: of the result. gate: of `low`.
    """
    B, C_low, h, w = low.shape
    C_high = weight.shape[1]
    high = _empty_map(low, B, C_high, 2 * h, 2 * w)
    rows = B * h * w
    maps = (low, _or(gate, low), weight, _or(bias, weight), high, rows, h, w)
    settings = dict(C_LOW=C_low, C_HIGH=C_high, GATED=gate is not None)
    settings |= dict(BIASED=bias is not None, RELU=relu)
    if C_high <= FEW_CHANNELS:
        block_m = _rows_of_block(rows, 1, most=128)
        blocks = dict(BLOCK_M=block_m, BLOCK_K=_block_k(C_low, low, 128))
        _up_to_few_kernel[(triton.cdiv(rows, block_m),)](*maps, **settings, **blocks)
    else:
        block_n = _block(C_high, 64)
        columns = triton.cdiv(C_high, block_n)
        block_m = _rows_of_block(rows, 4 * columns, most=128)
        blocks = dict(BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=_block_k(C_low, low, 64))
        _up_kernel[triton.cdiv(rows, block_m), columns, 4](*maps, **settings, **blocks)
    return high


def weight_grad(
    high: Tensor, low: Tensor, weight: Tensor, gradient: str, gate: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of the weights and of the bias, float32 [C_low, C_high, 4, 4] and [C].

    gradient: which map is the gradient of an output, 'low' or 'high', the other being an input; the
    bias is of that map's channels. gate: of the gradient.
    """
    B, C_low, h, w = low.shape
    C_high = weight.shape[1]
    rows, columns = B * h * w, 16 * C_high
    block_n, block_k = (4096 // max(32, C_low), 32) if columns % 128 == 0 else (16, 64)
    blocks = triton.cdiv(columns, block_n)
    parts = max(1, min(PROGRAMS_OF_SUM // blocks, rows // (4 * block_k)))  # of the rows
    rows_of_part = triton.cdiv(triton.cdiv(rows, parts), block_k) * block_k
    parts = triton.cdiv(rows, rows_of_part)

    of_low = gradient == "low"
    C = C_low if of_low else C_high
    sums_of_bias = parts if of_low else 4 * parts
    number = C_low * columns
    partial = torch.empty(parts * number + sums_of_bias * C, dtype=torch.float32, device=low.device)
    of_bias = partial[parts * number :]  # [sums_of_bias, C]
    _weight_grad_kernel[blocks, parts](
        *(high, low, _or(gate, low), partial, of_bias, rows, h, w, rows_of_part),
        **dict(C_LOW=C_low, C_HIGH=C_high, OF_LOW=of_low, GATED=gate is not None),
        **dict(BLOCK_L=_block(C_low, 128), BLOCK_N=block_n, BLOCK_K=block_k),
    )
    total = torch.empty(number + C, dtype=torch.float32, device=low.device)
    block = 64
    blocks_of_weight = triton.cdiv(number, block)
    _sum_kernel[(blocks_of_weight + triton.cdiv(C, block),)](
        *(partial, of_bias, total, number, C, parts, sums_of_bias, blocks_of_weight),
        **dict(BLOCK=block, BLOCK_S=32),
    )
    grad_weight = total[:number].view(C_low, 4, 4, C_high).permute(0, 3, 1, 2)
    return grad_weight, total[number:]


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A pointer is needed, also where nothing is read from it."""
    return other if tensor is None else tensor


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty_map(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _block(size: int, most: int) -> int:
    """A power of 2 that holds `size`, but at least 16, as matrix units want, and at most `most`."""
    return min(most, max(16, triton.next_power_of_2(size)))


def _block_k(size: int, like: Tensor, most_bytes: int) -> int:
    return _block(size, most_bytes // like.element_size())


def _rows_of_block(rows: int, blocks_beside: int, most: int) -> int:
    """`most`, or as many as leave enough programs to keep all multiprocessors at work."""
    block = most
    while block > 16 and triton.cdiv(rows, block) * blocks_beside < PROGRAMS:
        block //= 2
    return block


@triton.jit
def _gated(values, gate, where, mask, GATED: tl.constexpr):
    """`values`, but 0 where a gate is there and is 0; what is not a number stays so."""
    if GATED:
        values = tl.where(tl.load(gate + where, mask=mask, other=0.0) <= 0, 0.0, values)
    return values


@triton.jit
def _finished(sums, bias, column, size, BIASED: tl.constexpr, RELU: tl.constexpr):
    """Sums [M, N] with the bias of their columns added, and the ReLU of that."""
    if BIASED:
        sums += tl.load(bias + column, mask=column < size, other=0.0)[None, :]
    if RELU:
        sums = tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return sums


# Where a place of one map meets a tap of the other one is an offset that depends on the place plus
# one that depends on the tap and the channel. Whether it lies outside, behind one of the four
# edges, is a bit for each edge: set for the places at it, and for the taps that reach beyond.


@triton.jit
def _place(row, h, w):
    """A row's image, i and j, and its edges: top 1, bottom 2, left 4, right 8."""
    image, i, j = row // (h * w), row // w % h, row % w
    edges = tl.where(i == 0, 1, 0) + tl.where(i == h - 1, 2, 0)
    edges += tl.where(j == 0, 4, 0) + tl.where(j == w - 1, 8, 0)
    return image, i, j, edges


@triton.jit
def _taps_of_high(k, w, C_HIGH: tl.constexpr):
    """Of the k-th of the taps and channels, its offset from tap (0, 0) in the high map, and the
    edges beyond which it reaches."""
    u, along = k // (4 * C_HIGH), k % (4 * C_HIGH)  # four neighbours lie one after the other
    v = along // C_HIGH
    beyond = tl.where(u == 0, 1, 0) + tl.where(u == 3, 2, 0)
    beyond += tl.where(v == 0, 4, 0) + tl.where(v == 3, 8, 0)
    beyond = tl.where(k < 16 * C_HIGH, beyond, 15)
    return u * (2 * w * C_HIGH) + along, beyond


@triton.jit
def _down_kernel(
    high,
    gate,
    weight,
    bias,
    low,
    rows,
    h,
    w,
    C_LOW: tl.constexpr,
    C_HIGH: tl.constexpr,
    GATED: tl.constexpr,
    BIASED: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A row is a place of the low map, a column one of its channels; sums run over taps and
    channels of the high map."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    image, i, j, edges = _place(row, h, w)
    first = ((image * 2 * h + 2 * i - 1) * 2 * w + 2 * j - 1) * C_HIGH  # of tap (0, 0)
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, 16 * C_HIGH, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        offset, beyond = _taps_of_high(k, w, C_HIGH)
        where = first[:, None] + offset[None, :]
        inside = ((edges[:, None] & beyond[None, :]) == 0) & (row < rows)[:, None]
        if 16 * C_HIGH % BLOCK_K != 0:
            inside &= (k < 16 * C_HIGH)[None, :]
        values = tl.load(high + where, mask=inside, other=0.0)  # [M, K]
        values = _gated(values, gate, where, inside, GATED)
        known = (k < 16 * C_HIGH)[:, None] & (column < C_LOW)[None, :]
        place = column[None, :] * (16 * C_HIGH) + k[:, None]
        weights = tl.load(weight + place, mask=known, other=0.0)  # [K, N]
        sums += tl.dot(values, weights.to(values.dtype), input_precision="tf32")
    sums = _finished(sums, bias, column, C_LOW, BIASED, RELU)
    where = row[:, None] * C_LOW + column[None, :]
    tl.store(low + where, sums, mask=(row < rows)[:, None] & (column < C_LOW)[None, :])


@triton.jit
def _up_kernel(
    low,
    gate,
    weight,
    bias,
    high,
    rows,
    h,
    w,
    C_LOW: tl.constexpr,
    C_HIGH: tl.constexpr,
    GATED: tl.constexpr,
    BIASED: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A row is a place (2i + p, 2j + q) of the high map for one (p, q), a column one of its
    channels; sums run over the four taps that meet there and the channels of the low map."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    p, q = tl.program_id(2) // 2, tl.program_id(2) % 2
    image, i, j, edges = _place(row, h, w)
    first = ((image * h + i + p) * w + j + q) * C_LOW
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, 4 * C_LOW, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        pair, channel = k // C_LOW, k % C_LOW
        a, b = pair // 2, pair % 2  # low[i + p - a] by tap 1 - p + 2a, and so for the columns
        beyond = tl.where(a > p, 1, 0) + tl.where(a < p, 2, 0)
        beyond += tl.where(b > q, 4, 0) + tl.where(b < q, 8, 0)
        where = first[:, None] + (channel - (a * w + b) * C_LOW)[None, :]
        inside = ((edges[:, None] & beyond[None, :]) == 0) & (row < rows)[:, None]
        if 4 * C_LOW % BLOCK_K != 0:
            inside &= (k < 4 * C_LOW)[None, :]
        values = tl.load(low + where, mask=inside, other=0.0)  # [M, K]
        values = _gated(values, gate, where, inside, GATED)
        tap = (1 - p + 2 * a) * 4 + 1 - q + 2 * b
        known = (k < 4 * C_LOW)[:, None] & (column < C_HIGH)[None, :]
        place = (channel * 16 + tap)[:, None] * C_HIGH + column[None, :]
        weights = tl.load(weight + place, mask=known, other=0.0)  # [K, N]
        sums += tl.dot(values, weights.to(values.dtype), input_precision="tf32")
    sums = _finished(sums, bias, column, C_HIGH, BIASED, RELU)
    where = ((image * 2 * h + 2 * i + p) * 2 * w + 2 * j + q)[:, None] * C_HIGH + column[None, :]
    tl.store(high + where, sums, mask=(row < rows)[:, None] & (column < C_HIGH)[None, :])


@triton.jit
def _up_to_few_kernel(
    low,
    gate,
    weight,
    bias,
    high,
    rows,
    h,
    w,
    C_LOW: tl.constexpr,
    C_HIGH: tl.constexpr,
    GATED: tl.constexpr,
    BIASED: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """As `_up_kernel`, but a row is a place (i, j) of the low map, and the 16 columns are the four
    places of the high map there with four channels each; sums run over the nine neighbours."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.arange(0, 16)
    p, q, channel_high = column // 8, column // 4 % 2, column % 4
    image, i, j = row // (h * w), row // w % h, row % w
    sums = tl.zeros((BLOCK_M, 16), dtype=tl.float32)
    for neighbour in range(9):
        dy, dx = neighbour // 3 - 1, neighbour % 3 - 1
        inside = (i + dy >= 0) & (i + dy < h) & (j + dx >= 0) & (j + dx < w) & (row < rows)
        a, b = p - dy, q - dx
        met = (a >= 0) & (a <= 1) & (b >= 0) & (b <= 1) & (channel_high < C_HIGH)
        tap = (1 - p + 2 * a) * 4 + 1 - q + 2 * b
        for start in range(0, C_LOW, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            where = (row + dy * w + dx)[:, None] * C_LOW + k[None, :]
            mask = inside[:, None] & (k < C_LOW)[None, :]
            values = tl.load(low + where, mask=mask, other=0.0)  # [M, K]
            values = _gated(values, gate, where, mask, GATED)
            place = (k[:, None] * 16 + tap[None, :]) * C_HIGH + channel_high[None, :]
            known = met[None, :] & (k < C_LOW)[:, None]
            weights = tl.load(weight + place, mask=known, other=0.0)  # [K, 16]
            sums += tl.dot(values, weights.to(values.dtype), input_precision="tf32")
    sums = _finished(sums, bias, channel_high, C_HIGH, BIASED, RELU)
    y, x = (2 * i)[:, None] + p[None, :], (2 * j)[:, None] + q[None, :]
    where = ((image[:, None] * 2 * h + y) * 2 * w + x) * C_HIGH + channel_high[None, :]
    tl.store(high + where, sums, mask=(row < rows)[:, None] & (channel_high < C_HIGH)[None, :])


@triton.jit
def _weight_grad_kernel(
    high,
    low,
    gate,
    partial,
    of_bias,
    rows,
    h,
    w,
    rows_of_part,
    C_LOW: tl.constexpr,
    C_HIGH: tl.constexpr,
    OF_LOW: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The sums over one part of the low map's places: [C_LOW, 16 * C_HIGH] of the weights, whose
    columns are taps and channels, and those of the bias."""
    part = tl.program_id(1)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    offset, beyond = _taps_of_high(column, w, C_HIGH)
    channel = tl.arange(0, BLOCK_L)
    sums = tl.zeros((BLOCK_L, BLOCK_N), dtype=tl.float32)
    sums_low = tl.zeros((BLOCK_K, BLOCK_L), dtype=tl.float32)
    sums_high = tl.zeros((BLOCK_K, BLOCK_N), dtype=tl.float32)
    for start in range(0, rows_of_part, BLOCK_K):
        row = part * rows_of_part + start + tl.arange(0, BLOCK_K)
        image, i, j, edges = _place(row, h, w)

        where = row[:, None] * C_LOW + channel[None, :]
        mask = (row < rows)[:, None]
        if C_LOW != BLOCK_L:
            mask &= (channel < C_LOW)[None, :]
        values_low = tl.load(low + where, mask=mask, other=0.0)  # [K, L]
        values_low = _gated(values_low, gate, where, mask, GATED and OF_LOW)

        first = ((image * 2 * h + 2 * i - 1) * 2 * w + 2 * j - 1) * C_HIGH  # of tap (0, 0)
        where = first[:, None] + offset[None, :]
        mask = ((edges[:, None] & beyond[None, :]) == 0) & (row < rows)[:, None]
        if 16 * C_HIGH % BLOCK_N != 0:
            mask &= (column < 16 * C_HIGH)[None, :]
        values_high = tl.load(high + where, mask=mask, other=0.0)  # [K, N]
        values_high = _gated(values_high, gate, where, mask, GATED and not OF_LOW)

        sums += tl.dot(tl.trans(values_low), values_high, input_precision="tf32")
        if OF_LOW:
            sums_low += values_low
        else:
            sums_high += values_high

    where = (part * C_LOW + channel)[:, None] * (16 * C_HIGH) + column[None, :]
    known = (channel < C_LOW)[:, None] & (column < 16 * C_HIGH)[None, :]
    tl.store(partial + where, sums, mask=known)
    if OF_LOW:
        first_block = tl.program_id(0) == 0
        known = (channel < C_LOW) & first_block
        tl.store(of_bias + part * C_LOW + channel, tl.sum(sums_low, axis=0), mask=known)
    else:  # every place of the high map goes with one of the four inner taps, and with one only
        tap = column // C_HIGH
        u, v = tap // 4, tap % 4
        inner = (u >= 1) & (u <= 2) & (v >= 1) & (v <= 2) & (column < 16 * C_HIGH)
        which = part * 4 + (u - 1) * 2 + v - 1
        place = which * C_HIGH + column % C_HIGH
        tl.store(of_bias + place, tl.sum(sums_high, axis=0), mask=inner)


@triton.jit
def _sum_kernel(
    partial,
    of_bias,
    total,
    number,
    C,
    parts,
    sums_of_bias,
    blocks_of_weight,
    BLOCK: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """total[:number] = partial [parts, number] and total[number:] = of_bias [sums_of_bias, C], each
    summed over its rows."""
    block = tl.program_id(0)
    if block < blocks_of_weight:
        _sum_rows(partial, total, number, parts, block, BLOCK, BLOCK_S)
    else:
        _sum_rows(
            of_bias, total + number, C, sums_of_bias, block - blocks_of_weight, BLOCK, BLOCK_S
        )


@triton.jit
def _sum_rows(source, target, size, count, block, BLOCK: tl.constexpr, BLOCK_S: tl.constexpr):
    column = block * BLOCK + tl.arange(0, BLOCK)
    sums = tl.zeros((BLOCK_S, BLOCK), dtype=tl.float32)
    for start in range(0, count, BLOCK_S):
        row = start + tl.arange(0, BLOCK_S)
        mask = (row < count)[:, None] & (column < size)[None, :]
        sums += tl.load(source + row[:, None] * size + column[None, :], mask=mask, other=0.0)
    tl.store(target + column, tl.sum(sums, axis=0), mask=column < size)
