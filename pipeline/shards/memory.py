"""One budget of memory for the pictures in work: how large it is, what a picture takes of it, and who has to wait."""

from __future__ import annotations

import functools
import math
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PictureError
from pipeline.networks.restoration import Restorer
from pipeline.requests.form import parse_size
from pipeline.requests.recipe import Branch, Recipe

#: the share of the budget that files may take which are fetched and not yet decoded; the rest is for pictures
FETCHED = 0.25
#: bounds of the budget where none is asked for, and what is left for pictures however little is asked for
_LEAST, _MOST, _AT_LEAST = 512_000_000, 64_000_000_000, 64_000_000
#: most bytes for every byte of the largest decoded picture: steps and encoders; metrics, which compute in floats;
#: networks, which do too (see tests/benchmarks/picture_memory.py)
_STEPS, _METRICS, _NETWORKS = 9, 13, 13
#: likewise where JPEG 2000 is written, and read again to be measured
_JPEG2000 = 17
#: likewise for what is only decoded, and cut
_DECODED = 4
#: what networks take besides, whatever the picture's size: weights, and what is computed of some windows at a time
_WINDOWS = 450_000_000


class MemoryBudget:
    """Bytes that pictures in work may take together; one that needs more than all of it waits and then works alone."""

    def __init__(self, total: int):
        self.total = self.free = total
        self.change = threading.Condition()
        self.held: dict[int, int] = {}

    def take(self, count: int) -> int:
        """Wait for `count` bytes (at most the total) and return how many were taken."""
        count = min(count, self.total)
        with self.change:
            self.change.wait_for(lambda: self.free >= count)
            self.free -= count
        return count

    def give_back(self, count: int) -> None:
        with self.change:
            self.free += count
            self.change.notify_all()

    def hold(self, picture: int, count: int) -> None:
        """Take `count` bytes for a picture, by its number; one that holds something already is given no more."""
        if picture not in self.held:
            self.held[picture] = self.take(count)

    def let_go(self, picture: int, all_but: int = 0) -> None:
        """Give back what a picture holds, if anything, but for `all_but` bytes."""
        with self.change:
            held = self.held.pop(picture, 0)
            kept = min(held, all_but)
            if kept:
                self.held[picture] = kept
        if held > kept:
            self.give_back(held - kept)


@dataclass(frozen=True)
class Cost:
    """What pictures take at their worst in one kind of work: `factor` bytes for every decoded byte, `fixed` for all.

    Where the work is on at most `most` pixels of a picture, the others are only decoded.
    """

    factor: int
    fixed: int
    most: int | None = None

    def of(self, pixels: int, pixel_bytes: int) -> int:
        """Count the bytes that a picture of `pixels` takes, each of `pixel_bytes` once decoded."""
        # metrics, networks and most steps have three channels whatever the file has
        worked_on = pixels if self.most is None else min(pixels, self.most)
        return max(3, pixel_bytes) * (worked_on * self.factor + (pixels - worked_on) * _DECODED)

    def check(self, pixels: int, pixel_bytes: int, total: int) -> int:
        """Count the bytes of a picture against a budget of `total`. Raises PictureError where it needs more."""
        needed = self.of(pixels, pixel_bytes)
        if needed > total:
            whole = math.ceil((needed / (1 - FETCHED) + self.fixed + _held_at_first()) / 1e8) / 10
            raise PictureError(
                "too_large_for_memory",
                f"{pixels:,} pixels need about {needed / 1e6:,.0f} MB for what is done with them, and there are "
                f'{total / 1e6:,.0f} MB for pictures; give --memory "{whole:g} GB" or more',
            )
        return needed


def cost_of(recipe: Recipe, measure: bool) -> Cost:
    """Work out what the pictures of a run take, in bytes."""
    networks = any(item.step.kind == "network" for branch in recipe.branches for item in branch.steps)
    factor = max(_STEPS, _METRICS if measure else 0, _NETWORKS if networks else 0)
    formats = {branch.output.format for branch in recipe.branches}
    if measure and "jpeg2000" in formats | {item.step.name for branch in recipe.branches for item in branch.steps}:
        factor = max(factor, _JPEG2000)
    growth = max(map(_enlargement, recipe.branches), default=1) ** 2
    return Cost(factor * growth, _WINDOWS if networks else 0)


def memory_for_pictures(memory: str | None, fixed: int = 0) -> int:
    """Work out the bytes that there are for all that grows with the pictures in work.

    `memory` is what the whole process may take: what it holds before its first picture is taken off, and what is
    `fixed` whatever the pictures. None stands for half of what the machine, or the container, has free. Raises
    ValueError for what is no size.
    """
    if memory is None:
        return max(min(max(available() // 2, _LEAST), _MOST) - fixed, _AT_LEAST)
    return max(parse_size(memory) - _held_at_first() - fixed, _AT_LEAST)


def available() -> int:
    """Return the bytes that processes here may still take: the machine's, or the container's where that has fewer."""
    free = [_first_number("/proc/meminfo", "MemAvailable:", 1024)]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most, taken = _first_number(limit), _first_number(used)
        free.append(None if most is None or taken is None else max(0, most - taken))
    known = [count for count in free if count is not None]
    return min(known) if known else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@functools.cache
def _held_at_first() -> int:
    """Return the bytes the process had in memory when this was first asked; later ones would count pictures, too."""
    return _first_number("/proc/self/status", "VmRSS:", 1024) or 400_000_000


def _first_number(path: str, after: str = "", unit: int = 1) -> int | None:
    try:
        words = Path(path).read_text().partition(after)[2].split() if after else Path(path).read_text().split()
        return int(words[0]) * unit
    except (OSError, ValueError, IndexError):
        return None


def _enlargement(branch: Branch) -> int:
    """Return how many times longer a branch makes the sides of a picture."""
    networks = [item.network for item in branch.steps]
    return math.prod(network.scale for network in networks if isinstance(network, Restorer))
