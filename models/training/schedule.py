"""How long a training lasts and how its learning rate runs: constant after a warm-up, then falling to zero.

The rate is constant for as long as training may go on, and a cooldown of a small part of the budget ends it (Hägele et
al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024; the form is 1 - sqrt). A
cooldown may be taken from any checkpoint of the constant part, which itself goes on later as if there had been none.
Where nothing is learned, `advice` says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: validations before anything is said of them
_ENOUGH = 4
#: shares of the first score: less gained than this is nothing, more lost than that is a divergence
_NOTHING, _MUCH = 0.002, 0.05


@dataclass(frozen=True)
class Budget:
    """The length of a training: `steps`, `minutes`, or whichever ends first; None is no limit.

    `cooldown` is the share of it, 0 to below 1, over which the learning rate falls to zero at its end.
    """

    steps: int | None
    minutes: float | None
    cooldown: float

    def used(self, step: int, seconds: float) -> float:
        """Return the share of the budget that is used, 0 at the start, 1 and more once it is over."""
        return _share(self.steps, self.minutes, step, seconds)


@dataclass(frozen=True)
class Cooldown:
    """A cooldown under way: the `step` and `seconds` of training it began at, its length, and why it was begun."""

    step: int
    seconds: float
    steps: int | None
    minutes: float | None
    reason: str

    def used(self, step: int, seconds: float) -> float:
        """Return the share of the cooldown that is over, 0 to 1, at a step and second of the training."""
        return min(1.0, _share(self.steps, self.minutes, step - self.step, seconds - self.seconds))


def rate_factor(cooldown: Cooldown | None, step: int, seconds: float) -> float:
    """Compute the factor of the peak learning rate, 1 before the cooldown, then 1 - sqrt(share of it that is over)."""
    return 1.0 if cooldown is None else 1 - math.sqrt(cooldown.used(step, seconds))


def warm_up_factor(since: int, length: int) -> float:
    """Compute the learning rate's factor, which rises to 1 over `length` steps, `since` steps after the first."""
    return min(1.0, (since + 1) / max(1, length))


def average_decay(since: int, started: bool) -> float:
    """Compute the decay of the moving average `since` steps after it was begun, from given weights where `started`.

    The average spans about the last ninth of what it has seen, so that its start is forgotten, and at most 5,000 steps.
    Given weights are mostly an average themselves: they count as 9,000 steps seen, or the noise of the first few
    hundred steps would take their place.
    """
    seen = since + (9_000 if started else 0)
    return min(0.9998, (1 + seen) / (10 + seen))


def cooldown_of(budget: Budget, step: int, seconds: float, out_of_patience: bool) -> Cooldown | None:
    """Return the cooldown to begin now, or None while the constant part goes on.

    It takes what is left of the budget; where patience ended the constant part before, as much of a budget that would
    have ended here.
    """
    if budget.used(step, seconds) >= 1 - budget.cooldown:
        steps = None if budget.steps is None else max(0, budget.steps - step)
        minutes = None if budget.minutes is None else max(0.0, budget.minutes - seconds / 60)
        by_steps = budget.steps is not None and step / budget.steps >= 1 - budget.cooldown
        return Cooldown(step, seconds, steps, minutes, "steps" if by_steps else "minutes")
    if out_of_patience:
        return Cooldown(step, seconds, round(step * budget.cooldown / (1 - budget.cooldown)), None, "patience")
    return None


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


def _share(steps: int | None, minutes: float | None, step: int, seconds: float) -> float:
    by_steps = 0.0 if steps is None else step / steps if steps else 1.0
    by_time = 0.0 if minutes is None else seconds / 60 / minutes if minutes else 1.0
    return max(by_steps, by_time)
