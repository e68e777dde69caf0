"""The steps `represent` and `reconstruct`: every kind of picture, the latents table, whole runs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.inference import apply_in_batches
from models.registry import load_model
from models.training.small_pictures import read_small_pictures
from pipeline.errors import LatentError, PictureError, RecipeError
from pipeline.networks.autoencoders import UseAutoencoder, reconstruct, represent
from pipeline.networks.encoders import model_input
from pipeline.networks.latents import latent_of, vector_columns
from pipeline.pictures.decode import decode
from pipeline.pictures.picture import Picture
from pipeline.requests.recipe import load_recipe
from pipeline.runs.finish import develop
from tests.autoencoder_models import random_autoencoder
from tests.picture_files import smooth
from tests.runs import contents, fill, request, table, tables


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return random_autoencoder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def grey_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return random_autoencoder(tmp_path_factory.mktemp("models"), shape=[1, 28, 20])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (28, 20), (40, 33), (300, 7)])
def test_every_kind_of_picture_goes_through(
    model: str, grey_model: str, channels: int, dtype: type, height: int, width: int
) -> None:
    """A vector of the model's length; a reconstruction of the picture's size, kind and alpha."""
    picture = Picture("k", smooth(height, width, channels, dtype))
    for url in (model, grey_model):
        vector = represent(UseAutoencoder(model=url)).represent(picture, apply_in_batches)
        assert (vector.shape, vector.dtype) == ((12,), np.float32)
        pixels = reconstruct(UseAutoencoder(model=url)).restore(picture, apply_in_batches).pixels
        assert (pixels.shape, pixels.dtype) == (picture.pixels.shape, dtype)
        if picture.alpha is not None:
            assert (pixels[:, :, -1:] == picture.alpha).all()


def test_what_transparency_hides_says_nothing(model: str) -> None:
    pixels = smooth(40, 40, 4)
    pixels[:, :20, 3] = 0
    other = pixels.copy()
    other[:, :20, :3] = 77
    one, two = (
        represent(UseAutoencoder(model=model)).represent(Picture("k", p), apply_in_batches) for p in (pixels, other)
    )
    assert (one == two).all()


def test_a_picture_of_the_models_size_is_seen_as_it_is(model: str) -> None:
    """Nothing is resampled: the vector and the reconstruction are the network's own."""
    pixels = smooth(32, 32, 3)
    network = load_model(model, "autoencoder").network
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    picture = Picture("k", pixels)
    with torch.no_grad():
        vector = represent(UseAutoencoder(model=model)).represent(picture, apply_in_batches)
        assert np.allclose(vector, network.encode(batch)[0].numpy(), atol=1e-5)
        expected = network(batch)[0].permute(1, 2, 0).numpy() * 255
    assert (
        np.abs(reconstruct(UseAutoencoder(model=model)).restore(picture, apply_in_batches).pixels - expected).max()
        < 0.6
    )


def test_pictures_come_to_the_network_as_in_training(tmp_path: Path) -> None:
    """Larger, smaller and odd pictures, colour and grey, to colour and grey."""
    for number, (height, width, channels) in enumerate([(90, 50, 3), (12, 40, 3), (64, 64, 1)]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), smooth(height, width, channels))
    for shape in [(3, 32, 32), (1, 20, 31)]:
        trained = read_small_pictures(str(tmp_path), shape)
        for name, seen in zip(trained.names, trained.pictures, strict=True):
            used = model_input(decode((tmp_path / name).read_bytes(), name), shape)
            assert torch.equal((used * 255).round().to(torch.uint8), seen)


@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
@settings(deadline=None)
def test_vectors_survive_the_table(vector: np.ndarray) -> None:
    """To within half a step of 1/127 of the largest number, whatever that is; no codec's reader takes them."""
    row = vector_columns(vector, Picture("k", smooth(3, 5, 2)))
    step = row["scale"][0]
    assert row["latent"].dtype == np.int8
    assert row["shape"] == [len(vector)]
    assert np.abs(row["latent"] * step - vector).max() <= 0.5001 * step
    assert step <= max(np.abs(vector).max() / 126, 1) or not vector.any()
    assert (row["height"], row["width"], row["grey"]) == (3, 5, True)
    with pytest.raises(LatentError, match="is no codec"):
        latent_of(row | {"model": "m@0", "hyper_shape": None, "latent": list(row["latent"])})


def test_a_run_fills_the_latents_table_and_writes_no_picture(model: str, tmp_path: Path) -> None:
    """Rows for every good picture, whatever else the branch does; the picture itself is handed on untouched."""
    source = fill(tmp_path / "source", 5)
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    step = {"step": "represent", "model": model}
    recipe = {
        "branches": {
            "vectors": {"steps": [step], "output": {"format": "none"}},
            "both": [{"step": "jpeg"}, step, {"step": "gamma"}],
        }
    }
    summary = develop(request(source, tmp_path / "out", recipe))
    assert (summary.counts["good"], summary.counts["failed"]) == (5, 1)
    rows = table(tmp_path / "out", "latents", "branch, key, model, len(latent), shape, len(scale), stream, quality")
    assert len(rows) == 10
    assert {row[0] for row in rows} == {"vectors", "both"}
    assert all(list(row[2:]) == [load_model(model, "autoencoder").tag, 12, [12], 1, None, None] for row in rows)
    assert not (tmp_path / "out/pictures/vectors").exists()
    measured = table(tmp_path / "out", "metrics", "branch, psnr, ssim, bytes IS NULL")
    assert {row[1:] for row in measured if row[0] == "vectors"} == {(100.0, 1.0, True)}
    assert all(row[1] < 100 for row in measured if row[0] == "both")


def test_runs_again_give_the_same_bytes(model: str, tmp_path: Path) -> None:
    """However many workers there are: a vector does not depend on who travelled beside it."""
    source = fill(tmp_path / "source", 6)
    recipe = {
        "branches": {"v": [{"step": "represent", "model": model}], "r": [{"step": "reconstruct", "model": model}]}
    }
    for name, workers in (("one", 1), ("two", 4)):
        develop(request(source, tmp_path / name, recipe, workers=workers))
    assert tables(tmp_path / "one")["latents"] == tables(tmp_path / "two")["latents"]
    assert contents(tmp_path / "one", "pictures/") == contents(tmp_path / "two", "pictures/")


def test_a_network_of_no_numbers_is_a_failure_row(tmp_path: Path) -> None:
    """Latents that are not finite never reach the table."""
    url = random_autoencoder(tmp_path, seed=1)
    network = load_model(url, "autoencoder").network
    network.to_latent[1].weight.data.fill_(float("nan"))  # type: ignore[index, union-attr]
    with pytest.raises(PictureError, match="train it again"):
        represent(UseAutoencoder(model=url)).represent(Picture("k", smooth(8, 8, 3)), apply_in_batches)


def test_models_that_cannot_be_used_are_refused_before_anything_runs(tmp_path: Path) -> None:
    wrong = random_autoencoder(tmp_path, shape=[2, 16, 16])
    cases = {"codec-small": "is for 'codec'", wrong: "takes 2 channels", "nothing-of-this-name": "there is no model"}
    for name, told in cases.items():
        recipe = {"branches": {"v": [{"step": "represent", "model": name}]}}
        with pytest.raises(RecipeError, match=told):
            develop(request(fill(tmp_path / "source", 1), tmp_path / "out", recipe))


def test_the_shipped_recipe_writes_vectors_only() -> None:
    (branch,) = load_recipe("represent").branches
    assert [item.step.name for item in branch.steps] == ["represent"]
    assert branch.output.format == "none"
