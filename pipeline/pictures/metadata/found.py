"""What readers of single formats find, and the units that it is in."""

from __future__ import annotations

from typing import Any

from pipeline.pictures.metadata.exif import shape_of_pixels
from pipeline.pictures.picture import Resolution

#: fields of `Metadata`, by name
Found = dict[str, Any]

INCH = 0.0254
#: most bytes of texts that are kept, and that all packed texts of a file are unpacked to
TEXT_LIMIT, UNPACKED_LIMIT = 1 << 20, 8 << 20
#: colours as everybody takes them who is told nothing
_USUAL_PRIMARIES, _USUAL_TRANSFERS = (1, 2), (2, 13)


def in_units(across: float, down: float, inch: float | None) -> Resolution | None:
    """Return a resolution from pixels per unit, of which `inch` make an inch; without a unit the pixels' shape."""
    if not (0 < across < 1e9 and 0 < down < 1e9):
        return None
    if inch is None:
        return shape_of_pixels(across, down)
    if inch == INCH:
        return Resolution(_whole_inches(across), _whole_inches(down))
    return Resolution(across * inch, down * inch)


def _whole_inches(per_metre: float) -> float:
    """Return pixels per inch from pixels per metre, which formats round: 11811 a metre are 300 an inch."""
    whole = round(per_metre * INCH)
    return float(whole) if round(whole / INCH) == round(per_metre) else per_metre * INCH


def decoded(text: bytes) -> str:
    """Return a text of UTF-8, or else of Latin-1."""
    text = text.rstrip(b"\0")[:TEXT_LIMIT]
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def add_once(words: list[str], word: str) -> None:
    """Add a word to a list that lacks it."""
    if word not in words:
        words.append(word)


def is_usual(cicp: tuple[int, int, bool]) -> bool:
    """Return whether primaries, transfer and range are those that are taken of a file which says nothing."""
    return cicp[0] in _USUAL_PRIMARIES and cicp[1] in _USUAL_TRANSFERS and cicp[2]
