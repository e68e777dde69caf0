"""How a run tells whoever started it, in the same process, where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners: list[Callable[[str, object], None]] = []


@contextmanager
def listen(listener: Callable[[str, object], None]) -> Iterator[None]:
    """Call `listener(name, value)` for every event told while inside; may come from several threads."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(name: str, value: object) -> None:
    """Tell every listener in this process an event of a run and its value.

    Events: listing (int: objects so far), planned (Plan), picture (bool: good), finished (Summary), evaluated
    (Evaluation), generated (Generation), stage (str: what is being done), explored (Exploration), reading (pictures
    read and there), report (training Report), trained (Card), trial (TrialReport), swept (SweepSummary), shards (int:
    how many are checked), shard (bool: all is well), verified (Verification), removed (int: so far), collected
    (Collection), ended (str: the message of the last state), files (int: how many will be), assembled (list of
    Assembled).
    """
    for listener in list(_listeners):
        listener(name, value)
