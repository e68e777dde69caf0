"""The entropy coder: exact round trips, two implementations with the same bytes, golden bytes, hostile input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec import entropy_coder
from models.codec.entropy_coder import SYMBOL_LIMIT, PythonCoder, Reader, Writer
from models.codec.tables import TOTAL, Table
from models.errors import StreamError

GOLDEN = "00b20bfc3c2bbfadb24c9301"


@st.composite
def tables(draw: st.DrawFn) -> Table:
    size = draw(st.integers(2, 40))
    weights = np.array(draw(st.lists(st.integers(1, 5000), min_size=size, max_size=size)), float)
    frequencies = np.maximum(1, np.floor(weights / weights.sum() * TOTAL)).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - frequencies.sum()
    return Table(draw(st.integers(-60, 60)), frequencies)


@given(st.lists(tables(), min_size=1, max_size=5), st.integers(0, 200), st.integers(1, 2), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_any_symbols_come_back(levels_tables: list[Table], count: int, steps: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, len(levels_tables), (steps, count))
    symbols = (generator.standard_normal((steps, count)) * 10 ** generator.uniform(0, 3)).astype(np.int32)
    symbols = symbols.clip(-SYMBOL_LIMIT, SYMBOL_LIMIT)
    writer = Writer()
    for step in range(steps):
        writer.put_levels(symbols[step], levels[step], levels_tables)
    data = writer.bytes()
    assert len(data) % 4 == 0
    reader = Reader(data)
    for step in range(steps):
        np.testing.assert_array_equal(reader.take_levels(levels[step], levels_tables), symbols[step])
    reader.finish()


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


def golden_case() -> tuple[np.ndarray, np.ndarray, list[Table]]:
    wide = Table(-2, np.array([4096, 16384, 32768, 8192, 2048, 2048], np.int64))
    narrow = Table(-1, np.array([1, 65533, 1, 1], np.int64))
    symbols = np.array([0, -1, 0, 1, 2, -2, 0, 0, 100, -1, 0, -1023, 1], np.int32)
    return symbols, np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1]), [narrow, wide]


def test_golden_bytes() -> None:
    """The bytes of the format: they must never change for version 1."""
    symbols, levels, levels_tables = golden_case()
    writer = Writer()
    writer.put_levels(symbols, levels, levels_tables)
    assert writer.bytes().hex() == GOLDEN
    reader = Reader(bytes.fromhex(GOLDEN))
    np.testing.assert_array_equal(reader.take_levels(levels, levels_tables), symbols)
    reader.finish()


def test_plain_python_alone_reads_and_writes_the_golden_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where constriction has no wheel the same file decodes."""
    monkeypatch.setattr(entropy_coder, "constriction", None)
    test_golden_bytes()


@given(st.binary(max_size=60), st.integers(0, 30))
@settings(max_examples=200, deadline=None)
def test_hostile_bytes_are_refused_or_decoded_never_worse(data: bytes, count: int) -> None:
    _, _, levels_tables = golden_case()
    try:
        reader = Reader(data)
        symbols = reader.take_levels(np.arange(count) % 2, levels_tables)
        reader.finish()
    except StreamError:
        return
    assert symbols.shape == (count,)
    assert (np.abs(symbols) <= SYMBOL_LIMIT).all()


def test_size_is_near_the_entropy() -> None:
    table = Table(0, np.array([32768, 16384, 8192, 8191, 1], np.int64))
    symbols = np.random.default_rng(1).choice(4, 10_000, p=[0.5, 0.25, 0.125, 0.125]).astype(np.int32)
    writer = Writer()
    writer.put_levels(symbols, np.zeros(len(symbols), np.int64), [table])
    bits = 8 * len(writer.bytes())
    ideal = -np.log2(table.frequencies[symbols] / TOTAL).sum()
    assert ideal <= bits <= ideal * 1.002 + 64
