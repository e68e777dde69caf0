"""The events that long work tells its `tell`; see `pipeline.events`, which says of each what it means."""

from __future__ import annotations

from pipeline.events import (
    Advanced,
    Began,
    Committed,
    Event,
    Finished,
    Listed,
    Noted,
    Planned,
    Read,
    Removed,
    Stepped,
    Tell,
    Tried,
    silent,
)

__all__ = [
    "Advanced",
    "Began",
    "Committed",
    "Event",
    "Finished",
    "Listed",
    "Noted",
    "Planned",
    "Read",
    "Removed",
    "Stepped",
    "Tell",
    "Tried",
    "silent",
]
