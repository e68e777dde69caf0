"""Integer probability tables: what the entropy coder uses in place of trained densities.

A table covers the symbols low .. low + size - 2 and, as its last entry, an escape for everything else; its entries are
whole numbers of at least 1 that sum to 65536. They are counted on training pictures once, when training ends, and are
part of the weights: encoder and decoder on any machine read the same integers, so no rounding can part them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

TOTAL = 1 << 16


@dataclass(frozen=True)
class Table:
    """A table of probabilities: `frequencies`, int64, are at least 1 each and sum to 65536.

    Entry i is symbol low + i, the last entry the escape.
    """

    low: int
    frequencies: np.ndarray
    #: the entropy coder's own form of the table, made at first use
    cache: dict[str, object] = field(default_factory=dict, compare=False, repr=False)

    def bits(self, symbols: np.ndarray, escape_bits: float) -> np.ndarray:
        """Compute what symbols cost in bits, an escape `escape_bits` more than its own entry."""
        escape = len(self.frequencies) - 1
        indices = symbols - self.low
        outside = (indices < 0) | (indices >= escape)
        cost = 16 - np.log2(self.frequencies)
        return cost[np.where(outside, escape, indices)] + outside * escape_bits


def counted_table(counts: np.ndarray, density: np.ndarray, low: int, weight: float) -> Table:
    """Make the table of counted symbols low .. low + len - 1, mixed with an expected density worth `weight` symbols.

    Symbols rarer than one in 2^17 are left to the escape, for they would cost more in the table.
    """
    expected = counts + weight * density / density.sum()
    kept = np.flatnonzero(expected >= expected.sum() / 2 / TOTAL)
    first, last = int(kept[0]), int(kept[-1])
    inside = expected[first : last + 1]
    shares = np.append(inside, max(expected.sum() - inside.sum(), 0.0))
    return Table(low + first, _whole(shares / shares.sum()))


def pack_tables(tables: list[Table]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pack tables as they are stored with the weights: one after another, their sizes and their lows, all int32."""
    sizes = np.array([len(table.frequencies) for table in tables], np.int32)
    lows = np.array([table.low for table in tables], np.int32)
    return np.concatenate([table.frequencies for table in tables]).astype(np.int32), sizes, lows


def unpack_tables(flat: np.ndarray, sizes: np.ndarray, lows: np.ndarray) -> list[Table]:
    """Unpack tables that `pack_tables` packed. Raises ValueError when a table does not sum to 65536."""
    ends = np.cumsum(sizes)
    tables = [
        Table(int(low), flat[end - size : end].astype(np.int64))
        for low, size, end in zip(lows, sizes, ends, strict=True)
    ]
    if any(
        len(table.frequencies) < 2 or table.frequencies.min() < 1 or table.frequencies.sum() != TOTAL
        for table in tables
    ):
        raise ValueError("the model's probability tables do not sum to 65536; its weights are damaged")
    return tables


def _whole(probabilities: np.ndarray) -> np.ndarray:
    """Turn probabilities into whole numbers of at least 1 that sum to 65536."""
    frequencies = np.maximum(1, np.floor(probabilities * TOTAL)).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - frequencies.sum()
    return frequencies
