"""What a run says is true: figures of the stored file, failures that count, files that are no pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.destination.schemas import SCHEMAS
from pipeline.requests.upkeep import VerifyRequest
from pipeline.runs.finish import develop
from pipeline.upkeep.verify import verify
from tests.picture_files import smooth
from tests.runs import fill, request, table

FORMATS = ["png", "jpeg", "webp", "avif", "tiff", "jpeg2000", "same"]
BLURRED = [{"step": "gaussian", "sigma": 0.8}]


def photographs(folder: Path, seed: int = 3, height: int = 90, width: int = 120) -> Path:
    """Colour and grey, of 8 and 16 bits, as PNG and as JPEG."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed).normal(0, 3 * seed, (height, width, 3))
    colour = np.clip(smooth(height, width, 3) + noise, 0, 255).astype(np.uint8)
    cv2.imwrite(str(folder / "colour.png"), colour)
    cv2.imwrite(str(folder / "grey.png"), colour[:, :, 0])
    cv2.imwrite(str(folder / "deep.png"), colour.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "photo.jpg"), colour, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return folder


def thirty(folder: Path) -> Path:
    """Thirty pictures of several sizes: as `photographs` has them, turned by EXIF, WebP, TIFF and BMP."""
    for seed, (height, width) in enumerate([(90, 120), (33, 171), (128, 64), (35, 39), (200, 33)]):
        photographs(folder / str(seed), seed, height, width)
    for seed, name in enumerate(["turned.jpg", "deep grey.png", "a.webp", "a.tiff", "a.bmp"]):
        colour = np.clip(smooth(61, 83, 3) + np.random.default_rng(seed).normal(0, 5, (61, 83, 3)), 0, 255)
        for number, pixels in enumerate((colour.astype(np.uint8), colour.astype(np.uint8)[::-1])):
            path = folder / f"{number} {name}"
            if name == "turned.jpg":
                exif = Image.Exif()
                exif[0x0112] = 6 + 2 * number
                Image.fromarray(pixels).save(path, exif=exif, quality=90)
            elif name == "deep grey.png":
                cv2.imwrite(str(path), pixels[:, :, 0].astype(np.uint16) * 257)
            else:
                cv2.imwrite(str(path), pixels)
    return folder


def read_by_others(path: Path) -> np.ndarray:
    """H x W x C float64 on 8-bit levels, upright, as Pillow or (16 bits, JPEG 2000) OpenCV reads the file."""
    if path.suffix in (".tiff", ".jp2") or "deep" in path.name:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        pixels = np.round(pixels / 257) if pixels.dtype == np.uint16 else pixels
        return np.atleast_3d(pixels[..., ::-1] if pixels.ndim == 3 else pixels).astype(np.float64)
    return np.atleast_3d(np.asarray(ImageOps.exif_transpose(Image.open(path)))).astype(np.float64)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one - other) ** 2)
    return 100.0 if error == 0 else min(100.0, 10 * np.log10(255**2 / error))


@pytest.mark.parametrize("format", FORMATS)
def test_figures_are_those_of_the_stored_file(format: str, tmp_path: Path) -> None:
    """PSNR by another reader is the row's within 0.01 dB, bytes are the file's, whatever the format loses."""
    source, out = thirty(tmp_path / "in"), tmp_path / "out"
    recipe = {"branches": {"blurred": BLURRED, "jpeg": [{"step": "jpeg", "quality": 30}]}, "output": {"format": format}}
    assert develop(request(source, out, recipe)).counts["good"] == 30
    rows = table(out, "metrics", "key, branch, path, bytes, psnr, unchanged")
    assert len(rows) == 60
    for key, branch, path, size, said, unchanged in rows:
        assert (out / path).stat().st_size == size
        assert path.startswith("streams/jpeg/" if branch == "jpeg" else "pictures/blurred/")
        assert not unchanged
        assert said == pytest.approx(psnr(read_by_others(out / path), read_by_others(source / key)), abs=0.01)


def test_what_no_step_changed_is_a_copy(tmp_path: Path) -> None:
    """Where the file keeps its format its bytes are the source's; a quality that is asked for is another matter."""
    source, out = photographs(tmp_path / "in"), tmp_path / "out"
    nothing = [{"step": "gamma", "gamma": 1.0}]
    jpeg = {"format": "jpeg", "quality": 50}
    branches: dict[str, Any] = {
        "same": {"steps": nothing, "output": {"format": "same"}},
        "empty": {"steps": [], "output": {"format": "same"}},
        "jpeg": {"steps": nothing, "output": jpeg},
        "smaller": {"steps": [], "output": jpeg},
    }
    develop(request(source, out, {"branches": branches}))
    rows = {row[:2]: row[2:] for row in table(out, "metrics", "branch, key, path, unchanged, psnr")}
    for key in ("colour.png", "grey.png", "deep.png", "photo.jpg"):
        for branch in ("same", "empty"):
            path, unchanged, said = rows[branch, key]
            assert (unchanged, said) == (True, 100)
            assert (out / path).read_bytes() == (source / key).read_bytes()
    assert [rows["jpeg", key][1] for key in ("photo.jpg", "colour.png")] == [True, False]
    assert rows["smaller", "photo.jpg"][1] is False
    assert rows["smaller", "photo.jpg"][2] < 45


def test_failed_branches_count(tmp_path: Path) -> None:
    """All failed: failed; some: partial. In manifest, counts, message and status; both are tried again if asked to."""
    source, out = fill(tmp_path / "in", 2), tmp_path / "out"
    cv2.imwrite(str(source / "long.png"), np.zeros((8, 17000, 3), np.uint8))
    webp, png = ({"steps": [], "output": {"format": name}} for name in ("webp", "png"))
    summary = develop(request(source, out, {"branches": {"w": webp, "p": png}}))
    counts = summary.counts
    assert (summary.status, counts["good"], counts["partial"], counts["failed"]) == ("complete", 2, 1, 0)
    assert ("long.png", "partial", "unsupported") in table(out, "manifest", "key, status, reason")
    assert [(row["key"], row["branch"]) for row in summary.failures] == [("long.png", "w")]
    assert not verify(VerifyRequest(destination=str(out))).findings
    again = develop(request(source, out, {"branches": {"w": webp, "p": png}}))
    assert (again.status, again.counts["done"], again.counts["done_failed"]) == ("nothing_to_do", 3, 1)
    retried = develop(request(source, out, {"branches": {"w": webp, "p": png}}, retry_failed=True))
    assert (retried.counts["objects"], retried.counts["partial"]) == (1, 1)

    alone = tmp_path / "alone"
    alone.mkdir()
    (source / "long.png").rename(alone / "long.png")
    summary = develop(request(alone, tmp_path / "none", {"branches": {"w": webp}}))
    assert (summary.status, summary.counts["failed"]) == ("failed", 1)
    assert "1 of 1 pictures failed" in (summary.message or "")
    assert table(tmp_path / "none", "manifest", "status") == [("failed",)]


def test_files_beside_pictures_are_left_out(tmp_path: Path) -> None:
    """What neither is a picture nor called like one is counted, not failed; with `strict` it fails."""
    source = fill(tmp_path / "in", 2)
    for name, content in (("000.json", "{}"), ("a.xmp", "<x/>"), ("empty.md", ""), ("README", "text")):
        (source / name).write_text(content)
    (source / "broken.jpg").write_text("<html>")
    summary = develop(request(source, tmp_path / "out"))
    counts = summary.counts
    assert (summary.status, counts["good"], counts["failed"], counts["left_out"]) == ("complete", 2, 1, 4)
    assert [row["key"] for row in summary.failures] == ["broken.jpg"]
    assert develop(request(source, tmp_path / "out")).status == "nothing_to_do"
    assert not verify(VerifyRequest(destination=str(tmp_path / "out"))).findings
    strict = develop(request(source, tmp_path / "strict", strict=True))
    assert (strict.counts["failed"], strict.counts["left_out"], strict.status) == (5, 0, "failed")

    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("no picture")
    nothing = develop(request(texts, tmp_path / "nothing"))
    assert (nothing.status, nothing.message and nothing.message.split(";")[0]) == ("failed", "no file is a picture")


def test_verify_knows_what_rows_promise(tmp_path: Path) -> None:
    """A row of metrics whose file the shard never wrote is found, also where all checksums agree."""
    source, out = fill(tmp_path / "in", 2), tmp_path / "out"
    summary = develop(request(source, out))
    (commit,) = (out / "runs" / summary.run / "shards").glob("*.json")
    content = json.loads(commit.read_text())
    lost = next(entry for entry in content["outputs"] if entry["path"].startswith("pictures/gamma/"))
    content["outputs"].remove(lost)
    commit.write_text(json.dumps(content))
    (out / lost["path"]).unlink()
    (finding,) = verify(VerifyRequest(destination=str(out))).findings
    assert finding.what == "rows"
    assert lost["path"] in finding.message


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_part_without_rows_has_no_row_group(name: str, tmp_path: Path) -> None:
    """Readers that take the first group's rows for the size of a batch stumble over an empty one."""
    import pyarrow.parquet as pq

    from pipeline.destination.parquet import to_parquet

    (tmp_path / "part.parquet").write_bytes(to_parquet(name, []))
    assert pq.read_metadata(tmp_path / "part.parquet").num_row_groups == 0
    assert pq.read_table(tmp_path / "part.parquet").num_rows == 0
