"""The entropy coder: exact round trips, two implementations with the same bytes, golden bytes, hostile input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec import entropy_coder
from models.codec.entropy_coder import PythonCoder, StreamError, decode_symbols, encode_symbols
from models.codec.tables import TOTAL, Table


@st.composite
def tables(draw: st.DrawFn) -> Table:
    size = draw(st.integers(2, 40))
    weights = np.array(draw(st.lists(st.integers(1, 5000), min_size=size, max_size=size)), float)
    frequencies = np.maximum(1, np.floor(weights / weights.sum() * TOTAL)).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - frequencies.sum()
    return Table(draw(st.integers(-60, 60)), frequencies)


@given(st.lists(tables(), min_size=1, max_size=4), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_any_symbols_come_back(channels: list[Table], height: int, width: int, seed: int) -> None:
    symbols = np.random.default_rng(seed).integers(-127, 128, (len(channels), height, width)).astype(np.int8)
    data = encode_symbols(symbols, channels)
    assert len(data) % 4 == 0
    np.testing.assert_array_equal(decode_symbols(data, channels, height, width), symbols)


@given(tables(), st.integers(0, 300), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_both_coders_write_and_read_the_same_words(table: Table, count: int, seed: int) -> None:
    pytest.importorskip("constriction")
    generator = np.random.default_rng(seed)
    indices = generator.choice(len(table.frequencies), count, p=table.frequencies / TOTAL).astype(np.int32)
    ours, theirs = PythonCoder(), entropy_coder.ConstrictionCoder()
    ours.push(indices, table)
    theirs.push(indices, table)
    np.testing.assert_array_equal(ours.words(), theirs.words())
    again = PythonCoder(theirs.words())
    np.testing.assert_array_equal(again.pop(count, table), indices)
    assert again.empty()


def test_golden_bytes() -> None:
    """The bytes of the format: they must never change for version 1."""
    table = Table(-2, np.array([4096, 16384, 32768, 8192, 2048, 2048], np.int64))
    symbols = np.array([[[0, -1, 0, 1, 2], [-2, 0, 0, 100, -1]]], np.int8)
    data = encode_symbols(symbols, [table])
    assert data.hex() == GOLDEN
    np.testing.assert_array_equal(decode_symbols(bytes.fromhex(GOLDEN), [table], 2, 5), symbols)


def test_plain_python_alone_reads_the_golden_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where constriction has no wheel the same file decodes."""
    monkeypatch.setattr(entropy_coder, "constriction", None)
    test_golden_bytes()


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_hostile_bytes_are_refused_or_decoded_never_worse(data: bytes) -> None:
    table = Table(-1, np.array([20000, 25536, 10000, 10000], np.int64))
    try:
        symbols = decode_symbols(data, [table, table], 3, 3)
    except StreamError:
        return
    assert symbols.shape == (2, 3, 3)


def test_size_is_near_the_entropy() -> None:
    table = Table(0, np.array([32768, 16384, 8192, 8191, 1], np.int64))
    generator = np.random.default_rng(1)
    symbols = generator.choice(4, (1, 100, 100), p=[0.5, 0.25, 0.125, 0.125]).astype(np.int8)
    bits = 8 * len(encode_symbols(symbols, [table]))
    ideal = -np.log2(table.frequencies[symbols.astype(int)] / TOTAL).sum()
    assert ideal <= bits <= ideal * 1.002 + 64


GOLDEN = "000094fc909b0100"
