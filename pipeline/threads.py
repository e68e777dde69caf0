"""Stages of threads, each of which takes items from its queue, and how many cores there are."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

# glibc gives threads heaps of their own, up to eight a core, and keeps tens of megabytes in each that ever held a
# picture: one a core is enough. Left alone it also keeps in them what tensors of up to 32 MB leave behind, half a
# gigabyte after a large picture: blocks from 16 MB on go back to the system, smaller ones stay to be used again.
# (-8 is M_ARENA_MAX, -3 M_MMAP_THRESHOLD, -1 M_TRIM_THRESHOLD; other C libraries have no such call.)
with contextlib.suppress(AttributeError, OSError, TypeError):
    for _parameter, _value in ((-8, os.cpu_count() or 1), (-3, 16_000_000), (-1, 32_000_000)):
        ctypes.CDLL(None).mallopt(_parameter, _value)


class Stage(Generic[Item]):
    """Up to `threads` daemon threads, started as they are needed, that call `work` on what is submitted.

    `work` must not raise. Daemons, because a decoder that hangs in C cannot be interrupted: such a thread is left
    behind and replaced (`grow`), and must not keep the process alive.
    """

    def __init__(self, name: str, threads: int, work: Callable[[Item], None]):
        self.name, self.work, self.most, self.threads = name, work, threads, 0
        self.items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        #: one for each thread that waits for an item that is not there yet
        self.idle = threading.Semaphore(0)
        self.lock = threading.Lock()

    def submit(self, item: Item) -> None:
        """Put an item into the queue; a thread is started where none waits and fewer than `most` run."""
        self.items.put(item)
        with self.lock:
            if not self.idle.acquire(blocking=False) and self.threads < self.most:
                self._start()

    def grow(self) -> None:
        """Add a thread, and raise the number of threads that may run by one."""
        with self.lock:
            self.most += 1
            self._start()

    def close(self) -> None:
        """Let the threads end once the queue is empty."""
        with self.lock:
            self.most = 0
            for _ in range(self.threads):
                self.items.put(None)

    def _start(self) -> None:
        self.threads += 1
        threading.Thread(target=self._run, name=f"{self.name}-{self.threads}", daemon=True).start()

    def _run(self) -> None:
        while (item := self.items.get()) is not None:
            self.work(item)
            self.idle.release()


def cores() -> int:
    """Return the number of cores that this process may use; macOS does not tell, there it is that of all cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
