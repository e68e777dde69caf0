"""The table of docs/metadata.md: what of a file's metadata is in what is made of it, found by making it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline.pictures.decode import decode
from pipeline.pictures.encode import EXTENSIONS, encode
from pipeline.pictures.picture import Metadata, Picture
from tests.described_pictures import described_files, tagged_png

#: what a cell may say that needs no word on the row
KEPT = ("kept", "converted", "turned", "-")
PROPERTIES = ("ICC", "EXIF", "XMP", "IPTC", "text", "resolution", "orientation", "colour tag", "alpha", "16 bits")

Cell = tuple[str, str]


def cells(data: bytes, name: str, format: str) -> dict[str, Cell]:
    """Return what becomes of each property of a described file in another format, and the words that were said.

    Colour tag, alpha and 16 bits are those of pictures with the file's other metadata, as far as its format has them.
    """
    source = decode(data, f"x.{name}")
    written = encode(source.pixels, source.metadata, format)
    back = decode(written.data).metadata
    said = source.metadata
    words = ", ".join(written.dropped)
    found: dict[str, Cell] = {}
    for property, field in (("ICC", "icc"), ("EXIF", "exif"), ("XMP", "xmp"), ("IPTC", "iptc"), ("text", "text")):
        found[property] = _cell(getattr(said, field), getattr(back, field), words, property)
    if said.text and not back.text and "text" not in words:
        found["text"] = ("converted", "")
    found["resolution"] = _cell(said.resolution, back.resolution, words, "resolution")
    turned = back.orientation == 1 and (said.orientation == 1 or source.pixels.shape[0] > source.pixels.shape[1])
    found["orientation"] = ("-" if said.orientation == 1 else "turned" if turned else "wrong", "")
    return found | _of_pixels(name, format)


def table() -> str:
    """Return the table in Markdown: a row for each format that is read, a column for each that is written."""
    files = described_files()
    lines = []
    for property in PROPERTIES:
        lines += [
            f"### {property}",
            "",
            "| from | " + " | ".join(EXTENSIONS) + " |",
            "|---" * (len(EXTENSIONS) + 1) + "|",
        ]
        for name, data in files.items():
            row = [cells(data, name, format)[property] for format in EXTENSIONS]
            if any(cell != "-" for cell, _ in row):
                lines.append(f"| {name} | " + " | ".join(cell for cell, _ in row) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(before: object, after: object, words: str, name: str) -> Cell:
    if not before:
        return "-", ""
    if after:
        return ("kept" if name in ("EXIF", "XMP", "resolution") or after == before else "converted"), ""
    return "dropped", words


def _of_pixels(name: str, format: str) -> dict[str, Cell]:
    found: dict[str, Cell] = {"colour tag": ("-", ""), "alpha": ("-", ""), "16 bits": ("-", "")}
    alpha = np.zeros((40, 48, 4), np.uint8)
    alpha[:, :24, 3] = 255
    deep = np.arange(40 * 48 * 3, dtype=np.uint16).reshape(40, 48, 3)
    holds: dict[str, Callable[[], Picture]] = {}
    if name in ("png", "avif"):
        holds["colour tag"] = lambda: replace(decode(tagged_png((9, 8))), key=name)
    if name in ("png", "webp", "tiff", "avif", "jpeg2000"):
        holds["alpha"] = lambda: decode(encode(alpha, Metadata(name, "rgb+alpha", 8), name).data)
    if name in ("png", "tiff", "jpeg2000"):
        holds["16 bits"] = lambda: decode(encode(deep, Metadata(name, "rgb", 16), name).data)
    for property, make in holds.items():
        picture = make()
        written = encode(picture.pixels, picture.metadata, format)
        back = decode(written.data)
        words = ", ".join(written.dropped)
        if property == "colour tag":
            kept = back.metadata.colour == picture.metadata.colour
            found[property] = ("kept" if kept else "converted" if back.metadata.icc else "dropped", words)
        elif property == "alpha":
            found[property] = ("kept" if back.pixels.shape[2] == 4 else "dropped", words)
        else:
            found[property] = ("kept" if back.pixels.dtype == np.uint16 else "dropped", words)
    return found
