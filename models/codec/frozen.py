"""A trained codec made ready for use: floating-point transforms, an integer prior, and counted tables.

`freeze` turns what training left into what ships: weights and biases of the prior become whole numbers, and the tables
of the entropy coder are counted on training pictures. Nothing that decides a probability is computed in floating
point from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from models.codec.entropy_coder import SYMBOL_LIMIT
from models.codec.integer_prior import IntegerPrior, code_latents, features_of
from models.codec.network import CodecNetwork
from models.codec.prior import (
    ACTIVATION_BITS,
    ANCHORS,
    HYPER_LIMIT,
    HYPER_STRIDE,
    LEVELS,
    QUALITIES,
    STEPS,
    WEIGHT_BITS,
    WEIGHT_LIMIT,
    HyperAnalysis,
    IntegerLayer,
    Prior,
    at_quality,
    laplace_bits,
    scale_of,
)
from models.codec.tables import TOTAL, Table, counted_table, pack_tables, unpack_tables
from models.codec.transforms import Analysis, Synthesis

#: layers of the integer prior, and how many bits after the point their inputs have
_LAYERS = {
    "first": 0,
    "second_mix": ACTIVATION_BITS,
    "second": ACTIVATION_BITS,
    "third_mix": ACTIVATION_BITS,
    "embed": 0,
    "around": ACTIVATION_BITS,
    "join": ACTIVATION_BITS,
    "mean": ACTIVATION_BITS,
    "level": ACTIVATION_BITS,
}
#: hyper latents have tables of their own for so many ranges of quality
_HYPER_RANGES = 16
#: symbols counted by `freeze`; beyond it all is escaped
_COUNTED = 400


class FrozenCodec(nn.Module):
    """A codec ready for use, in eval mode. Sizes as in `CodecNetwork`; pictures need multiples of 16 pixels.

    `reach` is how many pixels around a latent or a pixel its value may depend on, rounded up to whole latents.
    """

    log_gain: Tensor
    shrink: Tensor
    first_quality: Tensor
    level_quality: Tensor
    join_step: Tensor
    first_weight: Tensor
    mean_weight: Tensor
    level_tables: Tensor
    level_sizes: Tensor
    level_lows: Tensor
    hyper_tables: Tensor
    reach = 64

    def __init__(self, width: int = 128, latents: int = 320, down: int = 3, up: int = 5, hyper: int = 64):
        super().__init__()
        self.analysis = Analysis(width, latents, down)
        self.synthesis = Synthesis(width, latents, up)
        self.hyper_analysis = HyperAnalysis(latents, 128, hyper)
        trained = Prior(latents, hyper)
        self.register_buffer("log_gain", torch.zeros(ANCHORS, latents))
        for name in _LAYERS:
            layer = getattr(trained, name)
            self.register_buffer(f"{name}_weight", torch.zeros(layer.weight.shape, dtype=torch.int16))
            self.register_buffer(f"{name}_bias", torch.zeros(layer.bias.shape, dtype=torch.int32))
        for name, shape in (
            ("first_quality", (QUALITIES, trained.first_quality.shape[1])),
            ("level_quality", (QUALITIES, latents)),
            ("join_step", trained.join_step.shape),
            ("shrink", (LEVELS,)),
            ("level_tables", (LEVELS * (2 * _COUNTED + 2),)),
            ("level_sizes", (LEVELS,)),
            ("level_lows", (LEVELS,)),
            ("hyper_tables", (_HYPER_RANGES * hyper * (2 * HYPER_LIMIT + 2),)),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int32))

    @property
    def latents(self) -> int:
        """Number of latent channels."""
        return self.mean_weight.shape[0]

    @property
    def hyper_channels(self) -> int:
        """Number of hyper latent channels."""
        return self.first_weight.shape[1]

    def gain(self, quality: int) -> Tensor:
        """Compute the gains of the M latents at a quality in sixteenths, 16..1024; float32."""
        return at_quality(self.log_gain, torch.tensor([quality / 16]))[0].exp()

    def prior(self, quality: int) -> IntegerPrior:
        """Build the integer prior at a quality in sixteenths.

        Biases lie between those of the whole qualities next to it.
        """
        lower = min(max(quality // 16, 1), QUALITIES - 1)
        part = quality - 16 * lower
        weights, biases = self._integers
        own = {
            name: ((16 - part) * table[lower - 1] + part * table[lower] + 8) // 16
            for name, table in (("first", self.first_quality), ("level", self.level_quality))
        }
        return IntegerPrior(weights, biases | {n: biases[n] + b for n, b in own.items()}, self.join_step.double())

    @cached_property
    def tables(self) -> list[Table]:
        """The entropy coder's tables, one a level."""
        sizes = self.level_sizes.numpy()
        return unpack_tables(self.level_tables.numpy()[: sizes.sum()], sizes, self.level_lows.numpy())

    def hyper_tables_at(self, quality: int) -> list[Table]:
        """Return the tables of the hyper latents, one a channel, at a quality in sixteenths."""
        channels = self.hyper_channels
        position = (min(quality // 16, QUALITIES) - 1) * _HYPER_RANGES // QUALITIES
        return self._hyper_tables[position * channels : (position + 1) * channels]

    @cached_property
    def _hyper_tables(self) -> list[Table]:
        size = 2 * HYPER_LIMIT + 2
        sizes = np.full(len(self.hyper_tables) // size, size)
        return unpack_tables(self.hyper_tables.numpy(), sizes, np.full(len(sizes), -HYPER_LIMIT))

    def check(self) -> None:
        """Raise ValueError when tables or biases are such as `freeze` never makes, so that no sum is exact by luck."""
        sizes = self.level_sizes
        if sizes.min() < 2 or int(sizes.sum()) > len(self.level_tables):
            raise ValueError("the model's table sizes are damaged")
        assert self.tables
        assert self._hyper_tables
        for name in _LAYERS:
            weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
            # depthwise sums are carried in float32
            if weight.shape[-1] > 1 and weight.abs().sum((1, 2, 3)).max() * 255 + bias.abs().max() >= 1 << 24:
                raise ValueError(f"layer {name} of the model leaves the range in which it is exact")

    @cached_property
    def _integers(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        weights = {name: getattr(self, f"{name}_weight").double() for name in _LAYERS}
        weights = {name: w if w.shape[-1] > 1 else w.flatten(1) for name, w in weights.items()}
        return weights, {name: getattr(self, f"{name}_bias").double() for name in _LAYERS}


def freeze(network: CodecNetwork, pictures: Iterable[Tensor]) -> FrozenCodec:
    """Make a codec that is ready for use of a trained network and pictures (3 x H x W float in 0..1).

    The pictures should be some of those it was trained on; tables and reconstruction points are counted on them.
    """
    network = network.cpu().eval()
    prior = network.prior
    analysis, synthesis = network.analysis, network.synthesis
    frozen = FrozenCodec(
        synthesis.residual[0].out_channels // 4,  # type: ignore[operator,arg-type]
        len(analysis.lapped.weight),
        len(analysis.residual) - 3,
        len(synthesis.residual) - 4,
        prior.hyper_mean.shape[1],
    )
    for name in ("analysis", "synthesis", "hyper_analysis"):
        getattr(frozen, name).load_state_dict(getattr(network, name).state_dict())
    with torch.no_grad():
        qualities = torch.arange(1, QUALITIES + 1.0)
        frozen.log_gain.copy_(prior.log_gain)
        for name, bits in _LAYERS.items():
            layer: IntegerLayer = getattr(prior, name)
            weight = (layer.weight * 2**WEIGHT_BITS).round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
            getattr(frozen, f"{name}_weight").copy_(weight)
            getattr(frozen, f"{name}_bias").copy_(_whole(layer.bias, WEIGHT_BITS + bits))
        frozen.first_quality.copy_(_whole(at_quality(prior.first_quality, qualities), WEIGHT_BITS))
        frozen.join_step.copy_(_whole(prior.join_step, WEIGHT_BITS + ACTIVATION_BITS))
        frozen.level_quality.copy_(_whole(at_quality(prior.level_quality, qualities), WEIGHT_BITS + ACTIVATION_BITS))
        _count(frozen, prior, pictures)
    frozen.check()
    return frozen.eval().requires_grad_(False)


def hyper_of(frozen: FrozenCodec, scaled: Tensor) -> Tensor:
    """Compute hyper latents Z x ceil(h/4) x ceil(w/4), whole numbers in -31..31, of scaled latents M x h x w.

    Only the encoder does this.
    """
    height, width = scaled.shape[1:]
    bottom, right = -height % HYPER_STRIDE, -width % HYPER_STRIDE
    padded = torch.nn.functional.pad(scaled[None], (0, right, 0, bottom), mode="replicate")
    return frozen.hyper_analysis(padded)[0].round().clamp(-HYPER_LIMIT, HYPER_LIMIT)


def _count(frozen: FrozenCodec, prior: Prior, pictures: Iterable[Tensor]) -> None:
    """Fill the tables, and how far towards zero the mean of what was rounded to a symbol lies."""
    span = 2 * _COUNTED + 1
    counts = np.zeros((LEVELS, span))
    gaps, gap_counts = np.zeros(LEVELS), np.zeros(LEVELS)
    channels = prior.hyper_mean.shape[1]
    hyper_counts = np.zeros((_HYPER_RANGES, channels, 2 * HYPER_LIMIT + 1))
    per_range = QUALITIES // _HYPER_RANGES
    for index, picture in enumerate(pictures):
        latents = frozen.analysis(picture[None])[0]
        # every picture at four qualities across the range, others for the next picture
        for position in range(index % 4, _HYPER_RANGES, 4):
            quality = 16 * (1 + position * per_range + index // 4 % per_range)
            scaled = latents * frozen.gain(quality)[:, None, None]
            hyper = hyper_of(frozen, scaled)
            for channel, values in enumerate(hyper.flatten(1).long() + HYPER_LIMIT):
                hyper_counts[position, channel] += np.bincount(values.numpy(), minlength=2 * HYPER_LIMIT + 1)
            symbols, means, levels = quantise(frozen, scaled, hyper, quality)
            level, symbol = levels.flatten().numpy(), symbols.flatten().numpy()
            places = level * span + symbol.clip(-_COUNTED, _COUNTED) + _COUNTED
            counts += np.bincount(places, minlength=LEVELS * span).reshape(LEVELS, span)
            ones = np.abs(symbol) == 1
            off = (scaled.flatten().numpy() - means.flatten().numpy() / 16 - symbol) * symbol
            gaps += np.bincount(level[ones], -off[ones], minlength=LEVELS)
            gap_counts += np.bincount(level[ones], minlength=LEVELS)
    # neighbouring levels lend each other what is rarely counted
    support = torch.arange(-_COUNTED, _COUNTED + 1.0)[None]
    densities = torch.exp2(-laplace_bits(support, scale_of(torch.arange(0.0, LEVELS))[:, None])).double().numpy()
    tables = [counted_table(counts[n], densities[n], -_COUNTED, 200) for n in range(LEVELS)]
    flat, sizes, lows = pack_tables(tables)
    frozen.level_tables[: len(flat)] = torch.from_numpy(flat)
    frozen.level_sizes.copy_(torch.from_numpy(sizes))
    frozen.level_lows.copy_(torch.from_numpy(lows))
    frozen.shrink.copy_(torch.from_numpy(np.round(16 * gaps / np.maximum(gap_counts, 50))).clamp(0, 7))
    grid = torch.arange(-HYPER_LIMIT, HYPER_LIMIT + 1.0)[None, None, :, None].expand(1, channels, -1, 1)
    hyper_tables = []
    for position in range(_HYPER_RANGES):
        middle = torch.tensor([1 + (position + 0.5) * per_range])
        density = torch.exp2(-prior.hyper_bits(grid, middle))[0, :, :, 0].double().numpy()
        for channel in range(channels):
            shares = hyper_counts[position, channel] + 20 * density[channel] / density[channel].sum()
            hyper_tables.append(_full_table(np.append(shares, 0)))
    frozen.hyper_tables.copy_(torch.from_numpy(np.concatenate(hyper_tables)))


def quantise(frozen: FrozenCodec, scaled: Tensor, hyper: Tensor, quality: int) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise scaled latents M x h x w to symbols, means and levels as of `code_latents`."""
    prior = frozen.prior(quality)
    ordered = coding_order(scaled)

    def exchange(means: Tensor, levels: Tensor) -> Tensor:
        return rounded(next(ordered), means)

    height, width = scaled.shape[1:]
    return code_latents(prior, features_of(prior, hyper, height, width), exchange)


def rounded(values: Tensor, means: Tensor) -> Tensor:
    """Round scaled latents to symbols, int32, given their means in 1/16 of a step."""
    return (values - means / 16).round().clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT).int()


def coding_order(values: Tensor) -> Iterator[Tensor]:
    """Yield values M x h x w in the order in which the four steps come to them, one flat tensor a step."""
    for step in range(STEPS):
        parts = [values[(step + c) % 4 :: 4, c // 2 :: 2, c % 2 :: 2].flatten() for c in range(4)]
        yield torch.cat(parts)


def _whole(x: Tensor, bits: int) -> Tensor:
    return (x * 2**bits).round()


def _full_table(shares: np.ndarray) -> np.ndarray:
    """Make frequencies of shares, for every symbol, none left out."""
    frequencies = np.maximum(1, np.floor(shares / shares.sum() * (TOTAL - len(shares)))).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - frequencies.sum()
    return frequencies
