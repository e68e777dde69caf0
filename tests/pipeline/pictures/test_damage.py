"""Damaged files: what a decoder fills in or cannot check is a mark on the row, or a failure, never a good picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PictureError
from pipeline.pictures.decode import decode
from pipeline.runs.finish import develop
from tests import picture_files as files
from tests.runs import QUICK, request, table


def noisy(height: int = 240, width: int = 320, channels: int = 3) -> Image.Image:
    """A picture with detail everywhere, so that every part of its file is data."""
    noise = np.random.default_rng(2).normal(0, 24, (height, width, channels))
    pixels = np.clip(files.smooth(height, width, channels) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def put(data: bytes, at: int, new: bytes, length: int | None = None) -> bytes:
    return data[:at] + new + data[at + (len(new) if length is None else length) :]


JPEG_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "half, then an end": lambda data: data[: len(data) // 2] + b"\xff\xd9",
    "a sector of zeros": lambda data: put(data, len(data) // 2, bytes(512)),
    "zeros to the end": lambda data: put(data, len(data) // 3, bytes(len(data) - len(data) // 3 - 2)),
    "a sector of ones": lambda data: put(data, len(data) // 2, b"\xff" * 512),
    "a sector is missing": lambda data: put(data, len(data) // 2, b"", 512),
    "rows too few": lambda data: put(data, data.index(b"\xff\xc0" if b"\xff\xc0" in data else b"\xff\xc2") + 5, b"\2"),
}
JPEG_KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grey": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_blocks": 8},
    "cmyk": {},
}


def jpeg(kind: str) -> bytes:
    image = {"grey": noisy(channels=1), "cmyk": noisy().convert("CMYK")}.get(kind, noisy())
    return files.save(image, "JPEG", quality=85, **JPEG_KINDS[kind])


@pytest.mark.parametrize("damage", JPEG_DAMAGE)
@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_damaged_jpegs_are_marked_and_nothing_is_printed(
    kind: str, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        said = decode(JPEG_DAMAGE[damage](jpeg(kind))).metadata.damage
    except PictureError as error:
        # Pillow, which reads CMYK, gives some of them up
        said = error.message if kind == "cmyk" else None
    assert said
    assert said.startswith("jpeg: ")
    assert capfd.readouterr() == ("", "")


def test_a_wrong_restart_marker_is_damage() -> None:
    data = jpeg("with restarts")
    assert decode(put(data, data.index(b"\xff\xd3"), b"\xff\xd5")).metadata.damage


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_good_jpegs_are_not_marked(kind: str) -> None:
    """Neither is anything behind the end, between the segments in front, nor a second picture in the file."""
    data = jpeg(kind)
    table = data.index(b"\xff\xdb")
    for good in (data, data + bytes(4096), data + b"trash" * 99, data + data, put(data, table, b"\0junk", 0)):
        assert decode(good).metadata.damage is None


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"quality": 20, "optimize": True}])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_areas_are_not_taken_for_zeros_on_a_disk(level: int, options: dict[str, Any]) -> None:
    page = Image.new("L", (1200, 800), level)
    page.paste(noisy(64, 64, 1), (500, 400))
    for image in (page, page.convert("RGB")):
        assert decode(files.save(image, "JPEG", **options)).metadata.damage is None


@pytest.mark.parametrize("format", ["WEBP", "AVIF", "JPEG2000", "HEIF"])
def test_a_lost_sector_is_seen_where_there_are_no_checksums(format: str) -> None:
    def save(image: Image.Image) -> bytes:
        if format != "HEIF":
            return files.save(image, format, **({} if format == "JPEG2000" else {"quality": 95}))
        return files.heif(pytest.importorskip("pillow_heif").from_pillow(image))

    data = save(noisy())
    assert decode(data).metadata.damage is None
    damage = decode(put(data, len(data) // 1024 * 512, bytes(512))).metadata.damage
    assert damage
    assert "zero bytes" in damage
    assert decode(save(Image.new("RGB", (3000, 2000), "white"))).metadata.damage is None


def test_a_damaged_picture_is_developed_marked_and_counted_and_fails_where_it_must(tmp_path: Path) -> None:
    """The row says what is wrong, and the run how many there are; `strict` makes failures of them."""
    source = tmp_path / "source"
    source.mkdir()
    good = jpeg("plain")
    (source / "good.jpg").write_bytes(good)
    (source / "half.jpg").write_bytes(JPEG_DAMAGE["half, then an end"](good))
    summary = develop(request(source, tmp_path / "out", QUICK))
    (_, *good_row), (_, status, damaged) = table(tmp_path / "out", "manifest", "key, status, damaged")
    assert good_row == ["ok", None]
    assert status == "ok"
    assert "premature end" in damaged
    assert summary.counts["damaged"] == 1
    assert "1 of them damaged" in Path(str(summary.report)).read_text()
    summary = develop(request(source, tmp_path / "strict", QUICK, strict=True))
    assert (summary.counts["good"], summary.counts["failed"], summary.counts["damaged"]) == (1, 1, 0)
    assert summary.reasons == {"corrupt": 1}
