"""Figures of a run's stages: how long each was busy and pictures waited for it, so that one sees what to buy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

#: the stages in the order pictures pass them; those of a group share its threads
GROUPS = {
    "fetch": ("fetch",),
    "work": ("decode", "develop", "measure", "encode"),
    "device": ("device",),
    "write": ("write",),
}
STAGES = ("fetch", "decode", "develop", "device", "measure", "encode", "write")

_SAYS = {
    "fetch": "bytes from the source: a faster network or store",
    "decode": "files to pixels: more cores",
    "develop": "the steps of the recipe, without networks: more cores",
    "device": "networks: a GPU, or a larger one",
    "measure": "metrics and hashes: more cores, or metrics off",
    "encode": "pixels to files: more cores, or a quicker format",
    "write": "bytes to the destination: a faster network or store",
}

#: of one stage: `busy_s` of all its threads, `waiting_s` of all pictures in front of it, `threads_s` there were in all
Figures = dict[str, float]


class Slowest(NamedTuple):
    """The stage that sets the pace: the busiest of the busiest threads.

    `busy` is the share of time that these threads work at all, `share` that which they spend on this stage, both 0..1.
    """

    stage: str
    share: float
    busy: float

    def text(self) -> str:
        """Say for people: "encode, 71 % of the time of its threads, which are 98 % busy"."""
        alone = len(next(group for group in GROUPS.values() if self.stage in group)) == 1
        rest = "busy" if alone else f"of its threads, which are {self.busy:.0%} busy"
        return f"{self.stage}, {self.share:.0%} {rest}".replace("%", " %")


def together(shards: Iterable[Mapping[str, Figures]]) -> dict[str, Figures]:
    """Add up the figures of several shards, stage by stage."""
    whole: dict[str, Figures] = {}
    for shard in shards:
        for stage, figures in shard.items():
            sums = whole.setdefault(stage, dict.fromkeys(figures, 0.0))
            for name, seconds in figures.items():
                sums[name] = round(sums[name] + seconds, 4)
    return {stage: whole[stage] for stage in STAGES if stage in whole}


def share(figures: Figures) -> float:
    """Return the share of a stage's threads' time that they were busy with it, 0..1."""
    return min(1.0, figures["busy_s"] / figures["threads_s"]) if figures["threads_s"] else 0.0


def stage_rows(stages: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """Return the rows of the report's table of stages: seconds, shares, what each does, which sets the pace."""
    pace = slowest(stages)
    return [
        {"name": stage, "says": _SAYS[stage], "share": share(figures), "slowest": bool(pace and pace.stage == stage)}
        | figures
        for stage, figures in stages.items()
    ]


def slowest(stages: Mapping[str, Figures]) -> Slowest | None:
    """Return the stage that sets the pace; None where nothing was done."""
    groups = [[stage for stage in group if stage in stages] for group in GROUPS.values()]
    shares = [(sum(share(stages[stage]) for stage in group), group) for group in groups if group]
    busy, group = max(shares, default=(0.0, []))
    if not busy:
        return None
    stage = max(group, key=lambda one: share(stages[one]))
    return Slowest(stage, share(stages[stage]), min(1.0, busy))
