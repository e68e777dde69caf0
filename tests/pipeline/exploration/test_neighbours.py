"""Vectors out of a latents table, and the index over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RequestError
from pipeline.exploration import neighbours
from pipeline.exploration.neighbours import directions, exact_index, open_index
from pipeline.exploration.vectors import LatentsSource, find_latents, read_vectors, vector_batches
from pipeline.storage.store import open_store
from tests.exploration_runs import latents_row, write_run


def clustered(count: int, numbers: int = 16, seed: int = 0) -> np.ndarray:
    """Whole numbers of -127..127, count x numbers, around forty centres."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, 40, (40, numbers))
    values = centres[generator.integers(0, 40, count)] + generator.normal(0, 8, (count, numbers))
    return values.round().clip(-127, 127)


def source_of(folder: Path, vectors: np.ndarray, part: int = 500) -> LatentsSource:
    rows = [latents_row(f"{row:05d}.png", vector) for row, vector in enumerate(vectors)]
    write_run(folder, [rows[start : start + part] for start in range(0, len(rows), part)])
    return find_latents(open_store(folder), None)


def test_vectors_are_symbols_times_scale_sorted_by_key(tmp_path: Path) -> None:
    values = clustered(30)
    rows = [latents_row(f"{29 - row:02d}", vector) for row, vector in enumerate(values)]
    write_run(tmp_path, [rows[:11], [], rows[11:]])
    found = read_vectors(find_latents(open_store(tmp_path), None), 100)
    assert found.keys == [f"{row:02d}" for row in range(30)]
    np.testing.assert_array_equal(found.values, values[::-1].astype(np.float32) / 2)


@given(st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=20, deadline=None)
def test_of_too_many_vectors_evenly_spaced_ones_are_read(
    tmp_path_factory: pytest.TempPathFactory, count: int, most: int
) -> None:
    source = source_of(tmp_path_factory.mktemp("run"), clustered(count, 3), 7)
    found = read_vectors(source, most)
    every = -(-count // most)
    assert found.keys == [f"{row:05d}.png" for row in range(0, count, every)]
    assert found.all == count


def test_a_codecs_latent_is_pooled_to_mean_and_deviation_of_channels(tmp_path: Path) -> None:
    latent = np.arange(-12, 12)
    row = latents_row("a", latent, shape=[2, 3, 4], scale=[1.0, 0.5], branch="small")
    write_run(tmp_path, [[row]])
    (vector,) = read_vectors(find_latents(open_store(tmp_path), None), 9).values
    first, second = latent[:12].astype(float), latent[12:] * 0.5
    np.testing.assert_allclose(vector, [first.mean(), second.mean(), first.std(), second.std()], rtol=1e-6)


def test_rows_that_contradict_themselves_are_left_out_and_counted(tmp_path: Path) -> None:
    good = np.array([1, 2, 3, 4])
    rows = [
        latents_row("good", good),
        latents_row("in its stream only", good) | {"latent": None},
        latents_row("another shape", good, shape=[5]),
        latents_row("two dimensions", good, shape=[2, 3]),
        latents_row("shorter", good[:3]),
        latents_row("no number", good, scale=[float("nan")]),
        latents_row("scales of two", good, scale=[1.0, 2.0]),
        latents_row("no size", good, shape=[0]),
    ]
    write_run(tmp_path, [rows])
    found = read_vectors(find_latents(open_store(tmp_path), None), 100)
    assert (found.keys, found.left_out) == (["good"], 7)


def test_of_a_picture_in_two_runs_the_newer_row_counts(tmp_path: Path) -> None:
    write_run(tmp_path, [[latents_row("a", np.array([1, 1])), latents_row("b", np.array([2, 2]))]])
    write_run(tmp_path, [[latents_row("b", np.array([8, 8]))]], "r2", 1)
    found = read_vectors(find_latents(open_store(tmp_path), None), 100)
    assert (found.keys, found.values.tolist()) == (["a", "b"], [[0.5, 0.5], [4, 4]])


def test_a_model_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    source_of(tmp_path, clustered(3))
    assert find_latents(open_store(tmp_path), "made").model == "made@0123456789ab"
    with pytest.raises(RequestError, match="no latents of 'other'; there are those of made@0123456789ab"):
        find_latents(open_store(tmp_path), "other")


def test_a_folder_without_runs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--recipe represent"):
        find_latents(open_store(tmp_path), None)


def test_the_exact_index_finds_what_numpy_finds() -> None:
    values = clustered(300).astype(np.float32)
    index = exact_index([str(row) for row in range(300)], values)
    similarities, rows = index.nearest(values[:20], 5)
    unit = directions(values, values.mean(axis=0))
    np.testing.assert_allclose(similarities, -np.sort(-(unit[:20] @ unit.T), axis=1)[:, :5], atol=1e-5)
    assert (rows[:, 0] == np.arange(20)).all()


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """A table past what is searched exactly, that limit being low."""
    monkeypatch.setattr(neighbours, "EXACT", 1000)
    values = clustered(4000)
    source_of(tmp_path, values)
    return tmp_path, values.astype(np.float32) / 2


def recall(index: neighbours.Index, values: np.ndarray) -> float:
    """Of the ten nearest of some vectors, the share that an index finds."""
    exact = exact_index([str(row) for row in range(len(values))], values)
    asked = values[::40]
    found, true = index.nearest(asked, 10)[1], exact.nearest(asked, 10)[1]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, true, strict=True)]))


def test_a_large_table_is_searched_through_an_index_that_is_kept(large: tuple[Path, np.ndarray]) -> None:
    folder, values = large
    source = find_latents(open_store(folder), None)
    first = open_index(source)
    assert recall(first, values) > 0.9
    (kept,) = (folder / "explorations").glob("index-*.safetensors")
    written = kept.stat().st_mtime_ns
    again = open_index(source)
    assert kept.stat().st_mtime_ns == written
    assert again.keys == first.keys
    np.testing.assert_array_equal(again.nearest(values[:9], 5)[1], first.nearest(values[:9], 5)[1])


@pytest.mark.parametrize(
    "damage", [lambda data: b"nonsense", lambda data: data[:-8], lambda data: data[:-4] + b"\x7f" * 4]
)
def test_a_damaged_index_is_made_again(large: tuple[Path, np.ndarray], damage) -> None:
    folder, values = large
    source = find_latents(open_store(folder), None)
    open_index(source)
    (kept,) = (folder / "explorations").glob("index-*.safetensors")
    good = kept.read_bytes()
    kept.write_bytes(damage(good))
    assert recall(open_index(source), values) > 0.9
    assert kept.read_bytes() == good


def test_an_index_of_other_vectors_is_made_again(large: tuple[Path, np.ndarray]) -> None:
    folder, _ = large
    source = find_latents(open_store(folder), None)
    open_index(source)
    write_run(folder / "more", [[latents_row(str(row), vector) for row, vector in enumerate(clustered(2500))]])
    part = folder / "tables/latents/run=r1/part-00000.parquet"
    part.write_bytes((folder / "more/tables/latents/run=r1/part-00000.parquet").read_bytes())
    assert len(open_index(source).keys) == 6000


def test_batches_come_in_the_same_order_every_time(large: tuple[Path, np.ndarray]) -> None:
    source = find_latents(open_store(large[0]), None)
    once, twice = ([keys for keys, _, _ in vector_batches(source)] for _ in range(2))
    assert once == twice
