"""What every number of a latent does to a picture: decoded at both ends of its range, and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.generation.interpolation import Spread

Row = dict[str, Any]
#: latents to pictures N x H x W x C uint8
Decode = Callable[[np.ndarray], np.ndarray]

#: numbers of a latent that are looked at; of longer ones those that differ most between pictures
MOST_DIMENSIONS = 4096
_CHUNK = 256
#: 8-bit levels by which a pixel counts as changed
_CHANGED = 16
_SIDES = (("upper", "", "lower"), ("left", "", "right"))


def explain(decode: Decode, latent: np.ndarray, spread: Spread, reach: float) -> list[Row]:
    """Make rows of the table `traversal`, those first that change the picture most: d of them, or `MOST_DIMENSIONS`.

    Every number of the picture's `latent` (d float32) is set to `reach` standard deviations below and above its mean,
    the others being left as they are.
    """
    dimensions = np.sort(np.argsort(-spread.deviation, kind="stable")[:MOST_DIMENSIONS])
    rows = []
    for start in range(0, len(dimensions), _CHUNK):
        chunk = dimensions[start : start + _CHUNK]
        low, high = (decode(moved(latent, spread, chunk, [end])) for end in (-reach, reach))
        rows += [_row(int(d), spread, a, b) for d, a, b in zip(chunk, low, high, strict=True)]
    total = sum(row["pixel_change"] for row in rows) or 1.0
    rows.sort(key=lambda row: (-row["pixel_change"], row["dimension"]))
    return [row | {"rank": rank, "share": row["pixel_change"] / total} for rank, row in enumerate(rows)]


def moved(
    latent: np.ndarray, spread: Spread, dimensions: Sequence[int] | np.ndarray, steps: Sequence[float]
) -> np.ndarray:
    """Copy a latent, dimension after dimension, with that number `steps` deviations from its mean.

    Returns (dimensions steps) x d float32.
    """
    copies = np.repeat(latent[None], len(dimensions) * len(steps), 0).astype(np.float32)
    which = np.repeat(np.asarray(dimensions), len(steps))
    copies[np.arange(len(copies)), which] = spread.mean[which] + spread.deviation[which] * np.tile(
        steps, len(dimensions)
    )
    return copies


def _row(dimension: int, spread: Spread, low: np.ndarray, high: np.ndarray) -> Row:
    """Compare the pictures at both ends, H x W x C uint8."""
    low, high = low.astype(np.float32), high.astype(np.float32)
    change = np.abs(high - low).mean(2)
    row: Row = {
        "dimension": dimension,
        "mean": float(spread.mean[dimension]),
        "deviation": float(spread.deviation[dimension]),
        "pixel_change": float(change.mean()),
        "brightness": float((high - low).mean()),
        "contrast": float(high.mean(2).std() - low.mean(2).std()),
        "warmth": float((high - low)[:, :, 0].mean() - (high - low)[:, :, -1].mean()),
        "area": float((change > _CHANGED).mean()),
    }
    x, y, width = _place(change)
    row |= {"centre_x": x, "centre_y": y, "extent": width}
    return row | {"says": _says(row)}


def _place(change: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Find where a change of H x W lies: centre, 0..1 from the left and top, and its deviation in parts of a side."""
    total = float(change.sum())
    if total == 0:
        return None, None, None
    height, width = change.shape
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    rows, columns = change.sum(1) / total, change.sum(0) / total
    cy, cx = float(rows @ y), float(columns @ x)
    return cx, cy, float(np.sqrt((rows @ (y - cy) ** 2 + columns @ (x - cx) ** 2) / 2))


def _says(row: Row) -> str:
    """Say what the number does as it grows, in a few words."""
    change = row["pixel_change"]
    if change < 0.5:
        return "nothing to be seen"
    told = []
    if abs(row["brightness"]) > max(1.0, change / 4):
        told.append(f"{'brighter' if row['brightness'] > 0 else 'darker'} by {abs(row['brightness']):.0f}")
    if abs(row["warmth"]) > max(2.0, change / 4):
        told.append("warmer" if row["warmth"] > 0 else "cooler")
    if abs(row["contrast"]) > max(2.0, change / 4):
        told.append(f"{'more' if row['contrast'] > 0 else 'less'} contrast")
    return ", ".join(told or ["another shape"]) + _where(row)


def _where(row: Row) -> str:
    """Say on which side of the picture a change lies; empty when it is spread over all of it."""
    # an even change has 1 / sqrt(12) = 0.29
    if row["extent"] > 0.26:
        return ""
    words = [names[min(2, int(3 * row[axis]))] for names, axis in zip(_SIDES, ("centre_y", "centre_x"), strict=True)]
    return f", {' '.join(word for word in words if word) or 'in the middle'}"
