"""Clusters, maps, anomalies and probes: each on data of which the answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.autoencoders import build_autoencoder
from pipeline.errors import RequestError
from pipeline.exploration.anomalies.scores import latent_distances, reconstruction_errors
from pipeline.exploration.clusters import agreement, by_size, central, hdbscan, kmeans, principal_components, umap_map
from pipeline.exploration.probes import probe, read_labels, unlabelled


def blobs(sizes: tuple[int, ...], numbers: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors in well separated clusters, and which is whose."""
    generator = np.random.default_rng(seed)
    centres = 12 * np.eye(numbers)[: len(sizes)]
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return (centres[truth] + generator.normal(0, 1, (len(truth), numbers))).astype(np.float32), truth


def test_kmeans_finds_how_many_clusters_there_are() -> None:
    points, truth = blobs((40, 70, 50))
    found = kmeans(points, None)
    assert agreement(truth, found.labels) == (pytest.approx(1), 1)
    assert np.bincount(found.labels).tolist() == [70, 50, 40]
    assert max(found.tried, key=found.tried.__getitem__) == 3
    assert found.silhouette is not None
    assert found.silhouette > 0.7


def test_kmeans_takes_the_number_it_is_told() -> None:
    points, _ = blobs((40, 70, 50))
    assert kmeans(points, 5).labels.max() == 4


@pytest.mark.parametrize("points", [np.zeros((1, 3)), np.zeros((9, 3)), np.eye(2)])
def test_too_little_for_clusters_is_one_cluster(points: np.ndarray) -> None:
    assert set(kmeans(points.astype(np.float32), None).labels) == {0}
    assert set(kmeans(points.astype(np.float32), 2).labels) <= {0, 1}
    assert set(hdbscan(points).labels) == {-1}


def test_hdbscan_leaves_what_lies_apart_alone() -> None:
    points, truth = blobs((60, 40), 2)
    points = np.concatenate([points, [[90.0, 90.0], [-90.0, 50.0]]])
    found = hdbscan(points)
    assert found.labels[-2:].tolist() == [-1, -1]
    assert agreement(truth, found.labels[:-2])[0] > 0.9


@given(st.lists(st.integers(-1, 6), min_size=1, max_size=40))
def test_clusters_are_numbered_by_size(labels: list[int]) -> None:
    found = by_size(np.array(labels))
    assert ((found < 0) == (np.array(labels) < 0)).all()
    counts = np.bincount(found[found >= 0])
    assert (np.diff(counts) <= 0).all()
    assert len(set(zip(labels, found.tolist(), strict=True))) == len(set(labels))


def test_agreement_of_a_clustering_that_says_nothing() -> None:
    assert agreement(np.array(["a", "a", "b", "b"]), np.array([0, 1, 0, 1])) == (pytest.approx(0, abs=1e-9), 0.5)


def test_the_central_pictures_of_a_cluster_are_nearest_to_its_mean() -> None:
    points = np.array([[0.0], [1], [2], [10], [50]])
    assert central(points, np.array([0, 0, 0, 0, 1]), 0, 2).tolist() == [2, 1]


def test_principal_components_keep_what_varies() -> None:
    generator = np.random.default_rng(0)
    vectors = np.outer(generator.normal(0, 9, 50), [3, 4, 0]) / 5 + [7, 7, 7]
    found = principal_components(vectors.astype(np.float32))
    assert found.explained[0] > 0.999
    along = (vectors - vectors.mean(0)) @ [0.6, 0.8, 0]
    np.testing.assert_allclose(np.abs(found.values[:, 0]), np.abs(along), atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 5), (2, 1), (6, 3), (3, 200)])
def test_components_of_next_to_nothing_are_still_two(shape: tuple[int, int]) -> None:
    for vectors in (np.zeros(shape), np.arange(shape[0] * shape[1]).reshape(shape)):
        found = principal_components(vectors.astype(np.float32))
        assert found.values.shape[0] == shape[0]
        assert found.values.shape[1] >= 2
        assert np.isfinite(found.values).all()
        assert np.isfinite(found.explained).all()


@pytest.mark.slow
def test_umap_keeps_clusters_together() -> None:
    points, truth = blobs((12, 12), 4)
    found = umap_map(points)
    assert found is not None
    middles = [found[truth == cluster].mean(axis=0) for cluster in (0, 1)]
    nearest = [np.argmin([np.linalg.norm(point - middle) for middle in middles]) for point in found]
    assert nearest == truth.tolist()
    assert umap_map(points[:7]) is None


def test_the_latent_distance_is_that_of_the_nearest_wherever_they_lie() -> None:
    generator = np.random.default_rng(0)
    seen = np.concatenate([generator.normal(where, 0.1, (400, 3)) for where in (-10, 10)]).astype(np.float32)
    between, inside = np.zeros((1, 3), np.float32), np.full((1, 3), 10, np.float32)
    scores = latent_distances(seen, np.concatenate([between, inside]))
    np.testing.assert_allclose(scores, [300**0.5, 0], atol=0.5)
    odd = latent_distances(np.concatenate([seen, between]))
    assert odd.argmax() == len(seen)
    assert odd[:-1].max() < 1


def test_few_latents_and_equal_ones_are_no_trouble() -> None:
    assert latent_distances(np.ones((1, 4), np.float32)).tolist() == [0]
    assert latent_distances(np.ones((3, 4), np.float32)).tolist() == [0, 0, 0]
    assert latent_distances(np.array([[0], [3], [4]], np.float32)).tolist() == [3.5, 2, 2.5]


def test_networks_score_every_picture_by_itself() -> None:
    torch.manual_seed(0)
    network = build_autoencoder("convolutional", shape=[3, 16, 16], latent=8)
    pictures = np.random.default_rng(0).integers(0, 256, (70, 3, 16, 16)).astype(np.uint8)
    errors = reconstruction_errors(network, pictures)
    with torch.inference_mode():
        given = torch.from_numpy(pictures[66:67]).float() / 255
        alone = ((network(given) - given) ** 2).mean() / given.var(dim=(2, 3), correction=0).mean()
    assert errors[66] == pytest.approx(float(alone), rel=1e-4)


class MeanColour(torch.nn.Module):
    """Rebuilds every picture as its mean colour, which is all there is to flat ones."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean(dim=(2, 3), keepdim=True).expand_as(pictures)


def test_contrast_makes_no_reconstruction_worse_and_flat_pictures_are_no_trouble() -> None:
    faint = np.random.default_rng(0).integers(100, 156, (1, 3, 16, 16))
    pictures = np.concatenate([faint, 4 * (faint - 100), np.full((1, 3, 16, 16), 200)]).astype(np.uint8)
    network: Any = MeanColour()
    np.testing.assert_allclose(reconstruction_errors(network, pictures), [1, 1, 0], atol=1e-4)


def test_a_flat_picture_that_is_rebuilt_badly_has_a_high_score_and_no_infinite_one() -> None:
    network: Any = torch.nn.Threshold(2, 0.0)
    (error,) = reconstruction_errors(network, np.full((1, 3, 8, 8), 255, np.uint8))
    assert 1 < error < 1e4


def test_probes_read_labels_that_are_there_and_none_that_are_not() -> None:
    vectors, truth = blobs((40, 40, 40))
    for found in probe(vectors, [str(each) for each in truth]):
        assert found.accuracy == 1
        assert (found.classes, found.train + found.test) == (3, 120)
    shuffled = np.random.default_rng(0).permutation(truth)
    assert all(found.accuracy < 0.67 for found in probe(vectors, [str(each) for each in shuffled]))


def test_rare_and_missing_labels_are_left_out() -> None:
    vectors, truth = blobs((20, 20, 3))
    labels = [None if row == 0 else str(each) for row, each in enumerate(truth)]
    assert {(found.classes, found.train + found.test) for found in probe(vectors, labels)} == {(2, 39)}
    assert probe(vectors, ["one"] * 43) == []
    assert probe(vectors, [None] * 43) == []


def test_labels_are_the_folders_names() -> None:
    assert read_labels("folder", ["cats/a.png", "deep/dogs/b.png", "c.png"]) == ["cats", "dogs", None]


def test_labels_come_from_a_csv_or_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text('key,kind\n"a, b.png",cat\nc.png,\n', encoding="utf-8-sig")
    pq.write_table(pa.table({"key": ["a, b.png"], "kind": [7]}), tmp_path / "l.parquet")
    keys = ["a, b.png", "c.png", "d.png"]
    assert read_labels(f"{tmp_path}/l.csv:kind", keys) == ["cat", None, None]
    assert read_labels(f"{tmp_path}/l.parquet:kind", keys) == ["7", None, None]


def test_labels_of_other_pictures_are_refused_with_the_nearest_names(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("key,kind\nphotos/one.jpg,cat\nphotos/two.jpg,dog\n")
    with pytest.raises(RequestError, match=r"none of the 2 keys .* 'photos/one.jpg' .* called 'ones/one.jpeg'; name"):
        read_labels(f"{tmp_path}/l.csv:kind", ["ones/one.jpeg", "x.png"])
    (tmp_path / "l.csv").write_text("key,kind\na,\n")
    with pytest.raises(RequestError, match="no row with a key and a label"):
        read_labels(f"{tmp_path}/l.csv:kind", ["a"])


def test_pictures_without_a_label_are_counted() -> None:
    assert unlabelled(["a", "b"], ["1.png", "2.png"]) is None
    said = "1 of 2 pictures have no label, such as 2.png; figures are of the others"
    assert unlabelled(["a", None], ["1.png", "2.png"]) == said


def test_doubled_points_have_one_place_in_a_map_and_no_nan() -> None:
    """Eight copies of one point among twelve others."""
    points = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    doubled = np.concatenate([points[:1].repeat(8, 0), points])
    found = umap_map(doubled)
    assert found is not None
    assert np.isfinite(found).all()
    assert len(np.unique(found[:9], axis=0)) == 1
    assert umap_map(points[:1].repeat(20, 0)) is None


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("l.csv:colour", b"key,kind\na,b\n", "no column 'colour'; its columns are key, kind"),
        ("l.csv:kind", b"name,kind\na,b\n", "no column 'key'"),
        ("l.csv:kind", b"\xff\xfe\x00", "neither CSV"),
        ("l.csv:kind", b"", "its columns are none"),
        ("l.csv:kind", b"PAR1 and no more", "no readable Parquet"),
        ("nothing", b"", "say `folder`, or FILE:COLUMN"),
    ],
)
def test_labels_that_cannot_be_read_say_why(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / "l.csv").write_bytes(data)
    with pytest.raises(RequestError, match=said):
        read_labels(f"{tmp_path}/{name}", ["a"])
