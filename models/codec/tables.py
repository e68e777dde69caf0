"""Integer probability tables: what the entropy coder uses in place of the trained density.

A table covers the symbols low .. low + size - 2 and, as its last entry, an escape for everything else. Its entries are
whole numbers of at least 1 that sum to 65536. They are counted on training pictures once, when training ends, and are
part of the weights: encoder and decoder on any machine read the same integers, so no rounding can part them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.codec.network import Autoencoder, quantise
from models.codec.prior import QUALITIES, SYMBOL_LIMIT

TOTAL = 1 << 16


@dataclass(frozen=True)
class Table:
    """`frequencies`: int64, at least 1 each, sum 65536; entry i is symbol low + i, the last entry the escape."""

    low: int
    frequencies: np.ndarray


def freeze_tables(network: Autoencoder, pictures: list[Tensor]) -> None:
    """Count symbols over pictures (3 x H x W float in 0..1, multiples of 16) and fill the network's table buffers.

    Counts are mixed with the trained density, worth 8 symbols, so that a symbol never counted keeps a fair price.
    """
    with torch.no_grad():
        latents = torch.cat([network.analysis(p[None])[0].flatten(1) for p in pictures], dim=1)
        channels = latents.shape[0]
        support = torch.arange(-SYMBOL_LIMIT, SYMBOL_LIMIT + 1.0)
        grid = support[None, None, :, None].expand(1, channels, -1, 1)
        tables = []
        for level in range(1, QUALITIES + 1):
            gain = network.prior.gain(torch.tensor([float(level)]))
            symbols = quantise(latents[None, :, :, None], gain)[0, :, :, 0].to(torch.int64) + SYMBOL_LIMIT
            density = torch.exp2(-network.prior.bits(grid, gain))[0, :, :, 0].double().numpy()
            for channel in range(channels):
                counts = np.bincount(symbols[channel].numpy(), minlength=2 * SYMBOL_LIMIT + 1).astype(float)
                tables.append(_table(counts, density[channel]))
    network.tables = torch.from_numpy(np.concatenate([t.frequencies for t in tables])).int()
    network.table_sizes = torch.tensor([len(t.frequencies) for t in tables]).view(QUALITIES, channels).int()
    network.table_lows = torch.tensor([t.low for t in tables]).view(QUALITIES, channels).int()


def tables_of(network: Autoencoder, quality: int) -> list[Table]:
    """The tables of one quality (1..64), one a channel. Raises ValueError when the network has none yet."""
    if not len(network.tables):
        raise ValueError("this autoencoder has no probability tables yet; finish its training first")
    sizes = network.table_sizes.numpy()
    start = int(sizes[: quality - 1].sum())
    ends = start + np.cumsum(sizes[quality - 1])
    flat = network.tables.numpy().astype(np.int64)
    lows = network.table_lows[quality - 1].tolist()
    starts = np.concatenate([[start], ends[:-1]])
    return [Table(low, flat[a:b]) for low, a, b in zip(lows, starts, ends, strict=True)]


def _table(counts: np.ndarray, density: np.ndarray) -> Table:
    expected = counts + 8 * density / density.sum()
    # symbols rarer than one in 2^17 cost more in the table than they do as escapes
    kept = np.flatnonzero(expected >= expected.sum() / 2 / TOTAL)
    low, high = int(kept[0]), int(kept[-1])
    inside = expected[low : high + 1]
    weights = np.append(inside, max(expected.sum() - inside.sum(), 0.0))
    return Table(low - SYMBOL_LIMIT, _whole(weights / weights.sum()))


def _whole(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities as whole numbers of at least 1 that sum to 65536."""
    frequencies = np.maximum(1, np.floor(probabilities * TOTAL)).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - frequencies.sum()
    return frequencies
