"""One picture through a suite: every setting, every method, what was measured, and strips for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from pipeline.errors import PictureError
from pipeline.pictures.picture import to_8bit
from pipeline.steps.degrade import generator_for
from pipeline.suites.strips import Panel, draw_strip, largest_difference
from pipeline.suites.suite import Method, Scores, Setting, Spoiled, Suite, levels

Row = dict[str, Any]


@dataclass
class Outcome:
    """What became of a picture: rows of scores and of failures, and strips by setting.

    Rows are those of `pipeline.destination.schemas`, strips H x W x 3 uint8 RGB.
    """

    scores: list[Row] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)
    strips: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _Result:
    method: Method
    pixels: np.ndarray
    scores: Scores


def as_measured(pixels: np.ndarray, crop: int | None, grey: bool) -> np.ndarray:
    """Turn a picture without alpha into what is measured, H x W x 1|3 uint8.

    It is 8 bits of its middle `crop` pixels a side, or of the whole, and the luma of that if `grey`. Raises
    PictureError("step_failed") for a picture smaller than the crop.
    """
    pixels = to_8bit(pixels)
    if crop is not None:
        height, width = pixels.shape[:2]
        if min(height, width) < crop:
            raise PictureError("step_failed", f"{width} x {height} pixels have no crop of {crop} x {crop}")
        top, left = (height - crop) // 2, (width - crop) // 2
        pixels = pixels[top : top + crop, left : left + crop]
    if grey and pixels.shape[2] == 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)[:, :, None]
    return np.ascontiguousarray(pixels)


def measure_picture(
    key: str,
    clean: np.ndarray,
    suite: Suite,
    seed: int,
    strips: bool,
    give_up: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Take H x W x 1|3 uint8 through all settings and methods; what cannot be done is a row of failures, never raised.

    `give_up` is asked between methods; once it says True the work stops, and what comes back is to be thrown away.
    """
    outcome = Outcome()
    for setting in suite.settings:
        try:
            spoiled = setting.spoil(clean, generator_for(seed, key))
        except Exception as error:
            outcome.failures.append(_failure(key, setting.name, error))
            continue
        results = []
        for method in suite.methods:
            if give_up():
                return outcome
            if method.settings and setting.name not in method.settings:
                continue
            try:
                started = time.perf_counter()
                restored = method.restore(spoiled)
                seconds = time.perf_counter() - started
                scores = suite.measure(restored, spoiled)
            except Exception as error:
                outcome.failures.append(_failure(key, f"{setting.name}/{method.name}", error))
                continue
            row: Row = {"key": key, "suite": suite.name, "setting": setting.name, "method": method.name}
            row |= {"label": method.label, "group": method.group, "told": method.told, "seconds": seconds}
            outcome.scores.append(row | scores)
            results.append(_Result(method, levels(restored), scores))
        if strips and results:
            outcome.strips[setting.name] = _strip(suite, setting, spoiled, results)
    return outcome


def _failure(key: str, branch: str, error: Exception) -> Row:
    """Make a row of the table of failures; the branch is a setting, or a setting and a method."""
    reason, message = "step_failed", f"{type(error).__name__}: {error}"
    if isinstance(error, PictureError):
        reason, message = error.reason, error.message
    return {"key": key, "branch": branch, "stage": "develop", "reason": reason, "message": message[:500]}


def _strip(suite: Suite, setting: Setting, spoiled: Spoiled, results: Sequence[_Result]) -> np.ndarray:
    """Draw input, baselines, networks and truth, where the best network and the best baseline differ most."""
    first = suite.scores[0]

    def best(group: str) -> list[_Result]:
        return sorted((r for r in results if r.method.group == group), key=lambda r: -r.scores[first])[:1]

    shown = (best("network") + best("baseline") + best("input"))[:2]
    place = largest_difference(shown[0].pixels, shown[-1].pixels)
    panels = [
        Panel(result.method.label, f"{result.scores[first]:.2f} dB, whole picture", result.pixels) for result in results
    ]
    truth = Panel("truth", f"{setting.label}; {place[1].start}, {place[0].start}", spoiled.clean)
    return draw_strip([*panels, truth], place)
