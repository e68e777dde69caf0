"""How a flow tells whoever started it, in the same process, where it is: Prefect's tasks can be given no function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.events import Event, Tell

_listeners: list[Tell] = []


@contextmanager
def listen(listener: Tell) -> Iterator[None]:
    """Give a listener every event that flows tell while inside; they may come from several threads."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(event: Event) -> None:
    """Tell an event to everyone who listens."""
    for listener in list(_listeners):
        listener(event)
