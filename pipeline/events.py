"""What work says of itself while it goes on: typed events, each told to the one function that a caller gives.

Work that takes long has a parameter `tell`; a caller who wants to know prints, counts or draws what it is given:

    darkroom.develop("photos", "out", tell=print)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Anything that is told; the class says what it is."""


@dataclass(frozen=True)
class Listed(Event):
    """The listing of a source has come to so many `objects`; the last one says how many there are."""

    objects: int


@dataclass(frozen=True)
class Planned(Event):
    """A run is planned: `objects` to do in `shards`, `done` by earlier runs; `resumed`: the plan was there before."""

    run: str
    objects: int
    shards: int
    done: int
    resumed: bool


@dataclass(frozen=True)
class Began(Event):
    """A stage has begun, said in words; of `total` things, each of which is `Advanced`, where that is known."""

    stage: str
    total: int | None = None


@dataclass(frozen=True)
class Advanced(Event):
    """One thing more is done, and whether it went well: a picture of a run, a shard checked, a file put together."""

    good: bool


@dataclass(frozen=True)
class Committed(Event):
    """A shard is committed: so many `objects` were done, so many of them `failed`. Engines say it, in any order."""

    objects: int
    failed: int


@dataclass(frozen=True)
class Removed(Event):
    """So many `objects` have been removed so far."""

    objects: int


@dataclass(frozen=True)
class Read(Event):
    """So many `pictures` of a training set are read, of so many."""

    pictures: int
    of: int


@dataclass(frozen=True)
class Noted(Event):
    """Something people should know, in a sentence."""

    text: str


@dataclass(frozen=True)
class Stepped(Event):
    """A training has taken a step: where it is, what it measured, and what a validation after it measured.

    `fraction` of the budget used in 0..1, `seconds` of all sessions, `pictures` seen so far by all processes,
    `learning_rate` of parameters with factor 1, `score` (lower is better) and `validation` where there was one, `word`
    where it shows that nothing is learned.
    """

    step: int
    fraction: float
    seconds: float
    pictures: int
    learning_rate: float
    figures: dict[str, float]
    validation: dict[str, float] | None = None
    score: float | None = None
    word: str | None = None


@dataclass(frozen=True)
class Tried(Event):
    """Trial `number` of a sweep has begun, taken a step or ended, with `done` others of `of` behind it.

    `options` are what it drew (choices as JSON), `line` is the step of its training, `ended` its state once it has one.
    """

    number: int
    done: int
    of: int
    options: dict[str, Any]
    line: Stepped | None = None
    ended: str = ""
    value: float | None = None
    message: str = ""


@dataclass(frozen=True)
class Finished(Event):
    """A flow has come to its end; the result is what the same work gives where it is called from Python."""

    result: object


Tell = Callable[[Event], None]


def silent(event: Event) -> None:
    """Take an event, and do nothing with it."""
