"""What a shard leaves while it is worked on, so that after a sudden end one knows which pictures may have caused it.

`runs/<run>/begun/<shard>.json` names every picture that may be in work: those of a window that moves ahead of the work,
so that a few dozen pictures cost one small object. It goes when the shard is committed, or ends in order.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.destination.layout import begun_path, read_or_none
from pipeline.errors import StorageError
from pipeline.storage.store import Store, delete, write
from pipeline.threads import Stage

#: the window moves after so many pictures and is twice as long
_STEP = 16


@dataclass(frozen=True)
class Begun:
    """What an earlier attempt at a shard has left.

    `suspects` are the pictures that were in work when it ended, by their places in the shard; `crashed` those that are
    known to end the process, and how.
    """

    suspects: list[int] = field(default_factory=list)
    crashed: dict[int, str] = field(default_factory=dict)


def read_begun(destination: Store, run: str, shard: int) -> Begun:
    """Read what the last attempt at a shard left; nothing where there was none, or it ended in order.

    Raises StorageError.
    """
    data = read_or_none(destination, begun_path(run, shard))
    if data is None:
        return Begun()
    try:
        content = json.loads(data)
        return Begun(content["suspects"], {int(index): message for index, message in content["crashed"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        # written by us alone, whole or not at all; what somebody else left here suspects nobody
        return Begun()


class Window:
    """The writer of a shard's object ahead of the work: `extend` as pictures are begun, `wait` before one is worked on.

    `failed` is told what writing raises.
    """

    def __init__(self, destination: Store, path: str, crashed: dict[int, str], failed: Callable[[BaseException], None]):
        self.destination, self.path, self.crashed, self.failed = destination, path, crashed, failed
        self.asked, self.closed = 0, False
        self.covered: float = 0
        self.change = threading.Condition()
        self.writer: Stage[list[int]] = Stage("begun", 1, self._write)

    def extend(self, index: int, count: int, done: Container[int]) -> None:
        """Note that picture `index` of `count` is the next to be begun, and which are `done`."""
        if index + _STEP >= self.asked and self.asked < count:
            self.asked = min(index + 2 * _STEP, count)
            self.writer.submit([one for one in range(self.asked) if one not in done])

    def wait(self, index: int) -> None:
        """Wait until the object names this picture."""
        if self.covered <= index:
            with self.change:
                self.change.wait_for(lambda: self.covered > index)

    def close(self) -> None:
        """Stop writing, and let nobody wait any more."""
        self.closed = True
        self._cover(math.inf)
        self.writer.close()

    def remove(self) -> None:
        """Remove the object, once the shard is committed."""
        delete(self.destination, self.path)

    def clear(self) -> None:
        """End the attempt in order: no picture is suspected, those known to crash stay known."""
        with suppress(StorageError):
            if self.crashed:
                self._put([])
            else:
                self.remove()

    def _write(self, suspects: list[int]) -> None:
        if self.closed:
            return
        try:
            self._put(suspects)
        except Exception as error:
            self.failed(error)
            self._cover(math.inf)
        else:
            self._cover(suspects[-1] + 1 if suspects else 0)

    def _put(self, suspects: list[int]) -> None:
        content = {"suspects": suspects, "crashed": self.crashed}
        write(self.destination, self.path, (json.dumps(content) + "\n").encode())

    def _cover(self, index: float) -> None:
        with self.change:
            self.covered = max(self.covered, index)
            self.change.notify_all()
