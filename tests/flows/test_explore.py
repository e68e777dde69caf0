"""Exploring and searching as people do it: a folder of pictures, the command, a page in a browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import duckdb
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from flows.command.cli import main
from pipeline.exploration.explore import explore
from pipeline.requests.models import ExploreRequest
from tests.autoencoder_models import random_autoencoder
from tests.exploration_runs import photographs, write_png
from tests.runs import snapshot

HOSTILE = "<img src=x onerror=alert(1)> & \"q'"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return random_autoencoder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs in folders, each with a part of itself; a mirrored one, a hostile name, and no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, pixels in photographs().items():
        write_png(folder, name, pixels)
        write_png(folder, f"{name}-part", pixels[30:250, 20:240])
    write_png(folder, f"animals/{HOSTILE}", photographs()["animals/cat"][:, ::-1])
    frames = [Image.fromarray(pixels[:64, :64]) for pixels in photographs().values()]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:4])
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory, pictures: Path, model: str) -> Path:
    """The destination of an exploration, done once for all tests."""
    destination = tmp_path_factory.mktemp("out")
    request = ExploreRequest(
        source=str(pictures), destination=str(destination), model=model, labels="folder", umap=False, device="cpu"
    )
    explore(request)
    return destination


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def rows(destination: Path, name: str, columns: str = "*") -> list[tuple]:
    with duckdb.connect() as connection:
        query = f"SELECT {columns} FROM '{destination}/explorations/*/{name}.parquet'"
        return connection.execute(query).fetchall()


def test_every_picture_that_could_be_read_is_explored(explored: Path, pictures: Path) -> None:
    keys = {key for (key,) in rows(explored, "explored", "key")}
    own = {path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")}
    assert keys == own | {f"moving.gif#{frame:04d}" for frame in range(4)}
    scores = rows(explored, "explored", "latent, reconstruction, patch, patch_x, patch_y")
    assert all(None not in row and min(row) >= 0 for row in scores)
    heat = rows(explored, "explored", "heat")
    (folder,) = (explored / "explorations").glob("e*")
    assert all((folder / path).read_bytes().startswith(b"\x89PNG") for (path,) in heat if path)


def test_parts_and_mirrored_copies_are_grouped(explored: Path) -> None:
    pairs = {frozenset(row) for row in rows(explored, "duplicates", "key, other")}
    # of the retina's soft picture too few places can be told apart to know a part of it
    for name in set(photographs()) - {"things/retina"}:
        assert frozenset((f"{name}.png", f"{name}-part.png")) in pairs
    kinds = {kind for kind, one, two in rows(explored, "duplicates", "kind, key, other") if HOSTILE in one + two}
    assert "mirrored copy" in kinds


def test_neighbours_are_ranked(explored: Path) -> None:
    found = rows(explored, "neighbours", "key, rank, neighbour, similarity")
    found.sort()
    assert len(found) == 10 * 17
    assert all(key != neighbour for key, _, neighbour, _ in found)
    for start in range(0, len(found), 10):
        assert [row[1] for row in found[start : start + 10]] == list(range(10))
        assert (sorted(row[3] for row in found[start : start + 10]))[::-1] == [r[3] for r in found[start : start + 10]]


def test_the_same_again_changes_nothing_but_the_account(explored: Path) -> None:
    before = snapshot(explored)
    result = command("explore", explored, "--labels", "folder", "--no-umap", "--no-prefect")
    assert result.exit_code == 0, result.output
    changed = {Path(path).name for path, entry in snapshot(explored).items() if before.get(path) != entry}
    assert changed <= {"explore.json", "explore.html"}


def test_a_picture_is_found_by_itself_and_its_neighbours_follow(explored: Path, pictures: Path, tmp_path: Path) -> None:
    result = command("search", pictures / "things/coffee.png", explored, "--count", 3, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["searched"] == 17
    assert found["pictures"][0]["key"] == "things/coffee.png"
    assert found["pictures"][0]["similarity"] > 0.999
    assert len(found["pictures"]) == 3
    page = tmp_path / "found.html"
    other = tmp_path / "other.jpg"
    cv2.imwrite(str(other), photographs()["animals/cat"][:, ::-1, ::-1])
    result = command("search", other, explored, "--count", 17, "--page", page)
    assert result.exit_code == 0, result.output
    assert "<img src=x" not in page.read_text()
    assert page.read_text().count("data:image/webp") == 18


def test_what_cannot_be_searched_is_one_line(explored: Path, pictures: Path, tmp_path: Path) -> None:
    cases: list[tuple[list[Any], int, str]] = [
        ([pictures / "notes.txt", explored], 1, "notes.txt"),
        ([tmp_path / "nothing.png", explored], 3, "nothing.png"),
        ([pictures / "things/coffee.png", tmp_path], 2, "no finished run with latents"),
        ([pictures / "things/coffee.png", explored, "--model", "x"], 2, "no latents of 'x'"),
    ]
    for arguments, code, said in cases:
        result = command("search", *arguments)
        assert result.exit_code == code, result.output
        assert said in result.output.replace("\n", "")


def test_pictures_without_a_destination_are_a_usage_error(pictures: Path) -> None:
    result = command("explore", pictures, "--no-prefect")
    assert result.exit_code == 2
    assert "give a DESTINATION" in result.output.replace("\n", "")


def test_pictures_that_are_gone_are_told_and_the_rest_is_explored(pictures: Path, model: str, tmp_path: Path) -> None:
    source = tmp_path / "some"
    shutil.copytree(pictures / "things", source)
    request = ExploreRequest(source=str(source), destination=str(tmp_path / "out"), model=model, umap=False)
    explore(request)
    (source / "coffee.png").unlink()
    found = explore(request.model_copy(update={"source": str(tmp_path / "out"), "model": None})).findings
    assert "1 pictures could not be read again" in found.notes[0]
    assert found.looks[found.vectors.keys.index("coffee.png")] is None


def test_the_page_opens_without_a_complaint(explored: Path, browser: Any) -> None:
    (page,) = explored.glob("explorations/*/explore.html")
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url for url in requested if not url.startswith("data:")} == {page.as_uri()}
    for image in browser.find_elements("css selector", "img"):
        browser.execute_script("arguments[0].loading = 'eager'", image)
    loaded = "return [...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    assert browser.execute_script(loaded)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert len(browser.find_elements("css selector", "svg.map circle:not(.own)")) == 17
    assert HOSTILE in browser.find_element("css selector", "#anomalies").text
    assert browser.find_elements("css selector", "img[onerror]") == []
