"""Clocks of a shard's stages: what each was busy with, and how long pictures waited for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.reports.stage_figures import GROUPS, STAGES, Figures


class StageTimes:
    """Seconds that a shard spent by stage, added up by many threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.busy = dict.fromkeys(STAGES, 0.0)
        self.waiting = dict.fromkeys(STAGES, 0.0)

    def add(self, busy: Mapping[str, float]) -> None:
        with self.lock:
            for stage, seconds in busy.items():
                self.busy[stage] += seconds

    def waited(self, stage: str, seconds: float) -> None:
        """Add how long a picture, ready for a stage, was kept from it: by others, or for want of memory."""
        with self.lock:
            self.waiting[stage] += seconds

    def figures(self, threads: Mapping[str, int], seconds: float) -> dict[str, Figures]:
        """Return figures by stage, for a shard that took `seconds` on so many `threads` of each group."""
        count = {stage: threads[group] for group, stages in GROUPS.items() for stage in stages}
        with self.lock:
            return {
                stage: {
                    "busy_s": round(self.busy[stage], 4),
                    "waiting_s": round(self.waiting[stage], 4),
                    "threads_s": round(count[stage] * seconds, 4),
                }
                for stage in STAGES
                if count[stage]
            }


class Laps:
    """Where the time of one picture goes: `busy` seconds by stage. Of one thread, from when it is made."""

    def __init__(self) -> None:
        self.busy: dict[str, float] = {}
        self.since = time.perf_counter()

    def end(self, stage: str) -> None:
        """Count the time since the last lap as this stage's."""
        now = time.perf_counter()
        self.busy[stage] = self.busy.get(stage, 0.0) + now - self.since
        self.since = now

    def elsewhere(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time belongs to no lap: others are busy in it, and this thread waits."""

        def call(*arguments: Any) -> Any:
            before = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.since += time.perf_counter() - before

        return call
