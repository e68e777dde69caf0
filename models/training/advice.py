"""A word on a training that learns nothing: it diverges, or stands still."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: validations before anything is said of them
_ENOUGH = 4
#: shares of the first score: less gained than this is nothing, more lost than that is a divergence
_NOTHING, _MUCH = 0.002, 0.05


def advice(history: Sequence[dict[str, float]], started: bool) -> str | None:
    """Say what is wrong with a training and what to do, or None where it learns.

    `history` has `step` and `score` (lower is better) of every validation. Of a training that `started` from given
    weights only a divergence is said, for they may have little left to learn.
    """
    if len(history) < _ENOUGH:
        return None
    first, last = history[0], history[-1]
    best = min(entry["score"] for entry in history)
    scale = abs(first["score"])
    course = ", ".join(f"{entry['score']:.4g} at step {entry['step']:,}" for entry in (first, last))
    if not math.isfinite(last["score"]) or last["score"] - best > _MUCH * scale:
        return f"training diverges (held-out score {course}; lower is better); lower --learning-rate"
    if not started and first["score"] - best < _NOTHING * scale:
        return f"training stands still (held-out score {course}); raise --learning-rate, or leave it out"
    return None
