"""The prior as it decides: exact integer arithmetic, the same on every machine.

All values are whole numbers. They are carried in float64, where sums of products below 2^53 are exact in any order, so
that neither the number of threads, nor the matrix library, nor its blocking or reduced-precision modes can change a
bit; depthwise sums stay below 2^24 and are carried in float32, one multiplication and addition at a time. It always
runs on the CPU: what a GPU computes never decides a probability.

A layer is `floor((weight @ x + bias + 2^(shift - 1)) / 2^shift)`, clipped; weights are int16, biases int32.
`models.codec.prior` is the same arithmetic as it is trained, `docs/format.md` describes it for other decoders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.codec.prior import (
    ACTIVATION_BITS,
    ACTIVATION_LIMIT,
    CONTEXT_LIMIT,
    LEVEL_BITS,
    LEVELS,
    MEAN_BITS,
    MEAN_LIMIT,
    STEPS,
    WEIGHT_BITS,
)

#: a step's exchange with the entropy coder: means (int32, 1/16 steps) and levels (int64, 0..63) of every symbol of
#: the step, in coding order, to the symbols (int32)
Exchange = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class IntegerPrior:
    """One quality's prior: `weights` and `biases` by layer name, the quality's own biases added in.

    `join_step` is the bias of layer `join` by step and position class, 4 x 4 x C.
    """

    weights: dict[str, Tensor]
    biases: dict[str, Tensor]
    join_step: Tensor

    @property
    def latents(self) -> int:
        """Number of latent channels."""
        return self.weights["mean"].shape[0]


def features_of(prior: IntegerPrior, hyper: Tensor, height: int, width: int) -> Tensor:
    """Compute features C x height x width, 0..255, of hyper latents Z x ceil(height/4) x ceil(width/4).

    Hyper latents are whole numbers, too.
    """
    x = _shuffle(_layer(prior, "first", hyper.double(), 0))
    x = _depthwise(prior, "second_mix", x)
    x = _shuffle(_layer(prior, "second", x, ACTIVATION_BITS))
    return _depthwise(prior, "third_mix", x)[:, :height, :width].contiguous()


def code_latents(prior: IntegerPrior, features: Tensor, exchange: Exchange) -> tuple[Tensor, Tensor, Tensor]:
    """Walk the four steps, handing means and levels to `exchange` and taking symbols from it.

    Features C x h x w. Returns symbols and means (in 1/16) int32 and levels int64, all M x h x w. Encoder, decoder and
    the reader of latents differ in `exchange` only. Coding order within a step: position classes 0..3, each by
    channel, row, column.
    """
    width = features.shape[0]
    base = _matrix(prior.weights["join"][:, :width], features) + prior.biases["join"][:, None, None]
    shape = (prior.latents, *features.shape[1:])
    symbols = torch.zeros(shape, dtype=torch.int32)
    means, levels = torch.zeros_like(symbols), torch.zeros(shape, dtype=torch.int64)
    for step in range(STEPS):
        x = _context(prior, base, symbols, step)
        found = [_heads(prior, x[:, row::2, column::2], (step + c) % 4) for c, (row, column) in enumerate(_CLASSES)]
        taken = exchange(torch.cat([m.flatten() for m, _ in found]), torch.cat([n.flatten() for _, n in found]))
        parts = taken.split([m.numel() for m, _ in found])
        for c, ((row, column), (mean, level), part) in enumerate(zip(_CLASSES, found, parts, strict=True)):
            place = (slice((step + c) % 4, None, 4), slice(row, None, 2), slice(column, None, 2))
            means[place], levels[place], symbols[place] = mean, level, part.view(mean.shape)
    return symbols, means, levels


#: first row and column of the four position classes
_CLASSES = ((0, 0), (0, 1), (1, 0), (1, 1))


def _context(prior: IntegerPrior, base: Tensor, symbols: Tensor, step: int) -> Tensor:
    """Compute what is known before a step, C x h x w, 0..255; `base` is what layer `join` makes of the features."""
    known = symbols.clamp(-CONTEXT_LIMIT, CONTEXT_LIMIT).double()
    signed = _layer(prior, "embed", known, 0, low=-ACTIVATION_LIMIT)
    around = _depthwise(prior, "around", signed)
    weight = prior.weights["join"][:, -2 * len(signed) :]
    total = _matrix(weight, torch.cat([around, signed.clamp_min_(0)])).add_(base)
    for c, (row, column) in enumerate(_CLASSES):
        total[:, row::2, column::2] += prior.join_step[step, c][:, None, None]
    return _shift(total, WEIGHT_BITS).clamp_(0, ACTIVATION_LIMIT)


def _heads(prior: IntegerPrior, x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Compute means and levels of one group of channels at one class of positions."""
    parts = []
    for name, bits in (("mean", MEAN_BITS), ("level", LEVEL_BITS)):
        total = torch.tensordot(prior.weights[name][group::4], x, 1) + prior.biases[name][group::4, None, None]
        parts.append(_shift(total, WEIGHT_BITS + ACTIVATION_BITS - bits))
    limit = MEAN_LIMIT * 2**MEAN_BITS
    return parts[0].clamp_(-limit, limit).int(), parts[1].clamp_(0, LEVELS - 1).long()


def _layer(prior: IntegerPrior, name: str, x: Tensor, bits: int, low: int = 0) -> Tensor:
    """Apply a pointwise layer whose input has `bits` bits after the point."""
    total = _matrix(prior.weights[name], x).add_(prior.biases[name][:, None, None])
    return _shift(total, WEIGHT_BITS + bits - ACTIVATION_BITS).clamp_(low, ACTIVATION_LIMIT)


def _matrix(weight: Tensor, x: Tensor) -> Tensor:
    return (weight @ x.flatten(1)).view(-1, *x.shape[1:])


def _depthwise(prior: IntegerPrior, name: str, x: Tensor) -> Tensor:
    """Apply a depthwise layer: a k x k sum over each channel by itself, zeros outside, then bias, shift and ReLU."""
    weight = prior.weights[name]
    size = weight.shape[-1]
    height, width = x.shape[1:]
    padded = torch.nn.functional.pad(x.float(), (size // 2,) * 4)
    total = prior.biases[name].float()[:, None, None].expand_as(x).clone()
    for row in range(size):
        for column in range(size):
            factor = weight[:, 0, row, column].float()[:, None, None]
            total.addcmul_(padded[:, row : row + height, column : column + width], factor)
    return _shift(total.double(), WEIGHT_BITS).clamp_(0, ACTIVATION_LIMIT)


def _shift(total: Tensor, bits: int) -> Tensor:
    return torch.floor_(total.add_(2 ** (bits - 1)).mul_(2.0**-bits))


def _shuffle(x: Tensor) -> Tensor:
    """Move channels into space, 4C x h x w to C x 2h x 2w.

    Channel 4c + 2i + j goes to row i, column j of each square.
    """
    return torch.nn.functional.pixel_shuffle(x, 2)
