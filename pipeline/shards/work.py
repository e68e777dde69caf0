"""What a shard may be of: pictures that each go through something which gives rows.

A run of a recipe is one such work, the measuring of a suite another, the looks at pictures of an exploration a third.
They share all the rest: plans, stages, memory, deadlines, pictures that crash, commits, engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.destination.plans import DEVELOP, SourcePicture, kind_of
from pipeline.errors import RunError
from pipeline.frames.shared_file import SharedFile
from pipeline.pictures.picture import Reserve
from pipeline.requests.job import Job
from pipeline.requests.pictures import DevelopRequest, RunRequest
from pipeline.requests.stores import Access
from pipeline.shards.memory import Cost, cost_of
from pipeline.shards.picture import Developed, develop_picture
from pipeline.storage.store import Store, StoredObject

if TYPE_CHECKING:
    from models.inference import Apply

#: kinds of work, and what takes up their records; those of rooms above this one are known by name alone
_KINDS = {
    DEVELOP: "pipeline.requests.job:Job",
    "suite": "pipeline.suites.work:SuiteWork",
    "looks": "pipeline.exploration.features:LookWork",
}


class ShardWork(Protocol):
    """Work over pictures, resolved: all that runs, shards and engines need to know of it.

    `request` has the settings of the run. Plans, commits and tables lie at `destination`, which lies in `home`, where
    the lease is and whatever is ours. `tables` are those that get rows besides the manifest and the failures. `record`
    is the work as plain data, with the name of its kind in `resolved`, for `taken_up`.
    """

    @property
    def request(self) -> RunRequest: ...
    @property
    def source(self) -> Store: ...
    @property
    def destination(self) -> Store: ...
    @property
    def home(self) -> Store: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def access(self) -> Access: ...
    @property
    def tables(self) -> tuple[str, ...]: ...
    @property
    def cost(self) -> Cost: ...

    def record(self) -> dict[str, Any]:
        """Return the work as plain data, without access to its stores."""
        ...

    def objects(self) -> Iterable[StoredObject]:
        """List the objects of the source that it is about, in the order of their keys."""
        ...

    def through(
        self,
        found: SourcePicture,
        data: bytes | SharedFile,
        apply: Apply,
        reserve: Reserve,
        give_up: Callable[[], bool],
    ) -> Developed:
        """Take one picture to its rows and outputs; see `develop_picture` for the arguments.

        Raises for no picture.
        """
        ...

    def fault(self, decoded: int, rows: Mapping[str, int], branch_failures: int) -> str | None:
        """Say what does not add up in the numbers of rows that `decoded` pictures have left; None: all does."""
        ...


@dataclass(frozen=True)
class Developing:
    """The work of a job: pictures through the branches of a recipe."""

    job: Job
    tables: tuple[str, ...] = ("metrics", "latents")

    @property
    def request(self) -> DevelopRequest:
        return self.job.request

    @property
    def source(self) -> Store:
        return self.job.source

    @property
    def destination(self) -> Store:
        return self.job.destination

    @property
    def home(self) -> Store:
        return self.job.home

    @property
    def fingerprint(self) -> str:
        return self.job.fingerprint

    @property
    def access(self) -> Access:
        return self.job.access

    @property
    def cost(self) -> Cost:
        return cost_of(self.job.recipe, self.job.request.measure)

    def record(self) -> dict[str, Any]:
        return self.job.record()

    def objects(self) -> Iterable[StoredObject]:
        return self.job.objects()

    def through(
        self,
        found: SourcePicture,
        data: bytes | SharedFile,
        apply: Apply,
        reserve: Reserve,
        give_up: Callable[[], bool],
    ) -> Developed:
        return develop_picture(found, data, self.job.recipe, self.job.settings, apply, reserve, give_up)

    def fault(self, decoded: int, rows: Mapping[str, int], branch_failures: int) -> str | None:
        branches = len(self.job.recipe.branches)
        if rows["metrics"] + branch_failures == decoded * branches:
            return None
        return (
            f"{rows['metrics']} metric rows + {branch_failures} branch failures for {decoded} pictures x {branches} "
            "branches"
        )


#: what can be planned, run and finished: a job of a recipe, or another kind of work
AnyWork = Job | ShardWork


def as_work(job: AnyWork) -> ShardWork:
    """Return the work of a job; any other work is its own."""
    return Developing(job) if isinstance(job, Job) else job


def taken_up(record: Mapping[str, Any], access: Access | None = None) -> AnyWork:
    """Open the work of a record where it is to be done.

    Raises RunError, which names both sides, where this machine would do something else than was planned, and for a kind
    of work that this version does not know.
    """
    kind = kind_of(record)
    if kind not in _KINDS:
        raise RunError(f"the record is of work of the kind {kind!r}; this version knows {', '.join(_KINDS)}")
    module, _, name = _KINDS[kind].partition(":")
    work: AnyWork = getattr(import_module(module), name).from_record(record, access)
    return work
