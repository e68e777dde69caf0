"""Symbols to bytes and back: asymmetric numeral systems over integer tables.

The coder is constriction's `AnsCoder` (64-bit state, 32-bit words, 24-bit probabilities; Duda et al. 2015). Where
constriction has no wheel (Linux on aarch64) the same bytes are read and written by the few lines of Python below,
which also serve the tests as a second implementation.

Order: channels 0 .. M-1, each in row order, then the escaped symbols in the same order as 8-bit numbers. ANS is a
stack, so the encoder pushes all of that backwards and the decoder pops it forwards. Words are little-endian.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.codec.tables import TOTAL, Table

try:
    import constriction
except ImportError:
    constriction = None

#: shares of 1/65536 become the coder's 24-bit probabilities without rounding
_PRECISION = 24
_SHIFT = _PRECISION - TOTAL.bit_length() + 1
_ESCAPES = Table(-128, np.full(256, TOTAL // 256, np.int64))


class StreamError(Exception):
    """A stream that cannot be decoded; the message says what is wrong with it."""


def encode_symbols(symbols: np.ndarray, tables: Sequence[Table]) -> bytes:
    """Symbols M x h x w int8 to bytes (a multiple of 4)."""
    escaped = []
    groups = []
    for channel, table in zip(symbols, tables, strict=True):
        flat = channel.reshape(-1).astype(np.int32)
        indices = flat - table.low
        escape = len(table.frequencies) - 1
        outside = (indices < 0) | (indices >= escape)
        escaped.append(flat[outside])
        groups.append((np.where(outside, escape, indices).astype(np.int32), table))
    groups.append(((np.concatenate(escaped) - _ESCAPES.low).astype(np.int32), _ESCAPES))
    coder = _coder()
    for indices, table in reversed(groups):
        coder.push(indices, table)
    return coder.words().astype("<u4").tobytes()


def decode_symbols(data: bytes, tables: Sequence[Table], height: int, width: int) -> np.ndarray:
    """The mirror image of `encode_symbols`: bytes to symbols M x height x width int8.

    Raises StreamError when the bytes are no whole number of words or do not end where the symbols do.
    """
    if len(data) % 4:
        raise StreamError(f"the payload of {len(data)} bytes is not a whole number of 32-bit words")
    words = np.frombuffer(data, "<u4").astype(np.uint32)
    if len(words) and words[-1] == 0:
        raise StreamError("the payload ends in an empty word")
    coder = _coder(words)
    count = height * width
    symbols = np.empty((len(tables), count), np.int16)
    escapes = np.zeros((len(tables), count), bool)
    for channel, table in enumerate(tables):
        indices = coder.pop(count, table)
        escapes[channel] = indices == len(table.frequencies) - 1
        symbols[channel] = indices + table.low
    symbols[escapes] = coder.pop(int(escapes.sum()), _ESCAPES) + _ESCAPES.low
    if not coder.empty():
        raise StreamError("the payload goes on after the last symbol")
    return symbols.astype(np.int8).reshape(len(tables), height, width)


class PythonCoder:
    """The ANS coder in plain Python: the words of constriction's, slowly."""

    def __init__(self, words: np.ndarray | None = None):
        self.stack = [] if words is None else [int(word) for word in words]
        self.state = 0
        while self.stack and self.state >> 32 == 0:
            self.state = self.state << 32 | self.stack.pop()

    def push(self, indices: np.ndarray, table: Table) -> None:
        shares, starts = _shares(table)
        for index in reversed(indices.tolist()):
            share = shares[index]
            if self.state >> (64 - _PRECISION) >= share:
                self.stack.append(self.state & 0xFFFFFFFF)
                self.state >>= 32
            self.state = (self.state // share) << _PRECISION | (self.state % share + starts[index])

    def pop(self, count: int, table: Table) -> np.ndarray:
        shares, starts = _shares(table)
        indices = np.empty(count, np.int32)
        for position in range(count):
            remainder = self.state & ((1 << _PRECISION) - 1)
            index = int(np.searchsorted(starts, remainder, side="right")) - 1
            self.state = (self.state >> _PRECISION) * shares[index] + remainder - int(starts[index])
            if self.state >> 32 == 0 and self.stack:
                self.state = self.state << 32 | self.stack.pop()
            indices[position] = index
        return indices

    def words(self) -> np.ndarray:
        tail, state = [], self.state
        while state:
            tail.append(state & 0xFFFFFFFF)
            state >>= 32
        return np.array(self.stack + tail, np.uint32)

    def empty(self) -> bool:
        return self.state == 0 and not self.stack


class ConstrictionCoder:
    """The same coder by constriction."""

    def __init__(self, words: np.ndarray | None = None):
        ans = constriction.stream.stack.AnsCoder
        self.coder = ans() if words is None else ans(words)

    def push(self, indices: np.ndarray, table: Table) -> None:
        self.coder.encode_reverse(indices, _model(table))

    def pop(self, count: int, table: Table) -> np.ndarray:
        return self.coder.decode(_model(table), count)

    def words(self) -> np.ndarray:
        return self.coder.get_compressed()

    def empty(self) -> bool:
        return self.coder.is_empty()


def _coder(words: np.ndarray | None = None) -> ConstrictionCoder | PythonCoder:
    return PythonCoder(words) if constriction is None else ConstrictionCoder(words)


def _model(table: Table) -> object:
    # perfect=True keeps probabilities that are already multiples of 2^-16 exactly as they are
    return constriction.stream.model.Categorical(table.frequencies / TOTAL, perfect=True)


def _shares(table: Table) -> tuple[list[int], list[int]]:
    shares = table.frequencies << _SHIFT
    return shares.tolist(), (np.cumsum(shares) - shares).tolist()
