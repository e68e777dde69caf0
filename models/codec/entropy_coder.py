"""Symbols to bytes and back: asymmetric numeral systems over integer tables.

The coder is constriction's `AnsCoder` (64-bit state, 32-bit words, 24-bit probabilities; Duda et al. 2015). Where
constriction has no wheel (Linux on aarch64) the same bytes are read and written by the few lines of Python below,
which also serve the tests as a second implementation. ANS is a stack: the writer keeps what it is given and pushes it
backwards at the end, the reader pops it forwards. Words are little-endian.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.codec.tables import TOTAL, Table
from models.errors import StreamError

try:
    import constriction
except ImportError:
    constriction = None

#: symbols outside a table are written as 16-bit numbers, high byte first
SYMBOL_LIMIT = 1023
#: shares of 1/65536 become the coder's 24-bit probabilities without rounding
_PRECISION = 24
_SHIFT = _PRECISION - TOTAL.bit_length() + 1
_BYTE = Table(0, np.append(np.full(256, TOTAL // 256 - 1, np.int64), 256))


class Writer:
    """A writer that takes groups of symbols in the order they will be read; `bytes` then gives the stream."""

    def __init__(self) -> None:
        self.groups: list[tuple[np.ndarray, Table]] = []

    def put(self, symbols: np.ndarray, table: Table) -> None:
        """Put symbols of one table, without escapes."""
        self.groups.append(((symbols - table.low).astype(np.int32), table))

    def put_levels(self, symbols: np.ndarray, levels: np.ndarray, tables: Sequence[Table]) -> None:
        """Put symbols (int32, within +-1023), each with the table of its level: sorted by level, then the escapes."""
        order = np.argsort(levels.astype(np.uint8), kind="stable")
        escaped = []
        start = 0
        for table, count in zip(tables, np.bincount(levels, minlength=len(tables)).tolist(), strict=True):
            if not count:
                continue
            indices = symbols[order[start : start + count]] - table.low
            start += count
            escape = len(table.frequencies) - 1
            outside = (indices < 0) | (indices >= escape)
            if outside.any():
                escaped.append(indices[outside] + table.low)
                indices = np.where(outside, escape, indices)
            self.groups.append((indices.astype(np.int32), table))
        if escaped:
            numbers = np.concatenate(escaped) + 32768
            self.put(numbers >> 8, _BYTE)
            self.put(numbers & 255, _BYTE)

    def bytes(self) -> bytes:
        """Return the stream of all that was put, a multiple of 4 bytes."""
        coder = _coder()
        for indices, table in reversed(self.groups):
            coder.push(indices, table)
        return coder.words().astype("<u4").tobytes()


class Reader:
    """A reader of what `Writer` writes. Raises StreamError for bytes that no writer leaves."""

    def __init__(self, data: bytes):
        if len(data) % 4:
            raise StreamError(f"a payload of {len(data)} bytes is not a whole number of 32-bit words")
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        if len(words) and words[-1] == 0:
            raise StreamError("a payload ends in an empty word")
        self.coder = _coder(words)

    def take(self, count: int, table: Table) -> np.ndarray:
        """Take the next `count` symbols, int32, of one table that has no escapes.

        Raises StreamError where there is one.
        """
        indices = self.coder.pop(count, table)
        if (indices == len(table.frequencies) - 1).any():
            raise StreamError("an escape where none can be: the file is damaged")
        return indices + table.low

    def take_levels(self, levels: np.ndarray, tables: Sequence[Table]) -> np.ndarray:
        """Take the next symbols, int32, each by the table of its level.

        Raises StreamError for a symbol out of range.
        """
        order = np.argsort(levels.astype(np.uint8), kind="stable")
        symbols = np.empty(len(levels), np.int32)
        escapes = []
        start = 0
        for table, count in zip(tables, np.bincount(levels, minlength=len(tables)).tolist(), strict=True):
            if not count:
                continue
            places = order[start : start + count]
            start += count
            indices = self.coder.pop(count, table)
            symbols[places] = indices + table.low
            outside = indices == len(table.frequencies) - 1
            if outside.any():
                escapes.append(places[outside])
        if escapes:
            places = np.concatenate(escapes)
            numbers = (self.take(len(places), _BYTE) << 8) + self.take(len(places), _BYTE) - 32768
            if np.abs(numbers).max() > SYMBOL_LIMIT:
                raise StreamError("a symbol beyond every limit: the file is damaged")
            symbols[places] = numbers
        return symbols

    def finish(self) -> None:
        """Raise StreamError unless the bytes end where the symbols do."""
        if not self.coder.empty():
            raise StreamError("a payload goes on after its last symbol")


class PythonCoder:
    """An ANS coder in plain Python, which reads and writes the same words as constriction's, slowly."""

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
    """An ANS coder by constriction, which reads and writes the same words as `PythonCoder`."""

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
    if "constriction" not in table.cache:
        # perfect=True keeps probabilities that are already multiples of 2^-16 exactly as they are
        table.cache["constriction"] = constriction.stream.model.Categorical(table.frequencies / TOTAL, perfect=True)
    return table.cache["constriction"]


def _shares(table: Table) -> tuple[list[int], list[int]]:
    shares = table.frequencies << _SHIFT
    return shares.tolist(), (np.cumsum(shares) - shares).tolist()
