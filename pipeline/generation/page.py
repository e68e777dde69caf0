"""The page of `darkroom generate`: one self-contained HTML file in the manner of a run's report."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from pipeline.generation.results import Generation, Interpolation, Traversal, grid, square
from pipeline.reports.page import asset, environment

#: samples shown; all of them are beside the page
MOST_SAMPLES = 256
#: pixels that a picture is at least shown at
_SHOWN = 64


def render_generation(generation: Generation) -> str:
    """Render the page as HTML text (UTF-8 encodable), a pure function of its argument."""
    page = (
        environment()
        .get_template("generation.html")
        .render(
            card=generation.card,
            facts=generation.facts,
            prior=generation.prior,
            spread=generation.spread,
            samples=_samples(generation.samples),
            between=_between(generation.interpolation),
            through=_through(generation.traversal),
            css=Markup("\n".join(asset(name) for name in ("report.css", "evaluation.css", "generation.css"))),
        )
    )
    return page.encode("utf-8", "replace").decode()


def _samples(pictures: np.ndarray | None) -> dict[str, Any] | None:
    if pictures is None:
        return None
    shown = pictures[:MOST_SAMPLES]
    columns = min(16, 2 * square(len(shown)))
    return {"count": len(pictures), "shown": len(shown)} | _image(grid(shown, columns), columns, pictures.shape[2])


def _between(found: Interpolation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    ends = [
        {"name": name, **_image(picture, 1, picture.shape[1])}
        for name, picture in zip(found.ends, found.originals, strict=True)
    ]
    count = len(found.pictures)
    return {"way": found.way, "count": count, "ends": ends} | _image(
        grid(found.pictures, count), count, found.pictures.shape[2]
    )


def _through(found: Traversal | None) -> dict[str, Any] | None:
    if found is None:
        return None
    width = found.pictures.shape[3]
    strips = [_image(grid(pictures, len(pictures)), len(pictures), width) for pictures in found.pictures]
    widest = found.rows[0]["pixel_change"] or 1.0
    return {
        "key": found.key,
        "original": _image(found.original, 1, width),
        "reach": found.steps[-1],
        "rows": [row | strip for row, strip in zip(found.rows, strips, strict=False)],
        "widest": widest,
        "dimensions": len(found.rows),
        "still": sum(row["pixel_change"] < 0.5 for row in found.rows),
        "half": _half(found.rows),
    }


def _half(rows: list[dict[str, Any]]) -> int:
    """Count how many of the strongest numbers make half of all change."""
    return int(np.searchsorted(np.cumsum([row["share"] for row in rows]), 0.5)) + 1


def _image(pixels: np.ndarray, columns: int, side: int) -> dict[str, Any]:
    """Encode a picture as a data URL, with a CSS width in pixels that is a whole multiple of its own."""
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"image": url, "width": pixels.shape[1] * max(1, -(-_SHOWN // side)), "columns": columns}
