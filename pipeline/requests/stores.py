"""The stores that requests name: how they are reached, and opened for requests that are no `Job`.

No recipe, step or network is loaded for them, so that commands that run none start quickly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from pipeline.requests.form import Storage
from pipeline.storage.store import Store, StoredObject, list_objects, open_store

if TYPE_CHECKING:
    from pipeline.destination.plans import Plan
    from pipeline.requests.models import ExploreRequest, GenerateRequest, SearchRequest, SweepRequest, TrainRequest
    from pipeline.requests.pictures import RunRequest
    from pipeline.requests.upkeep import AssembleRequest, DestinationRequest, GcRequest


class Access(BaseModel):
    """The access to the stores of a job, which a record leaves out."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    source_storage: Storage = None
    destination_storage: Storage = None
    source_block: str | None = None
    destination_block: str | None = None

    @classmethod
    def of(cls, request: BaseModel) -> Access:
        """Return the access of a request, with whichever of the fields it has."""
        return cls(**{name: getattr(request, name) for name in cls.model_fields if hasattr(request, name)})

    def without_secrets(self) -> Access:
        """Return the access without what blocks of Prefect hold, which are read from Prefect by the names that stay."""
        sides = [side for side in ("source", "destination") if getattr(self, f"{side}_block")]
        return self.model_copy(update={f"{side}_storage": None for side in sides})


@dataclass(frozen=True)
class Stores:
    """The source and destination of a request that is no job, opened."""

    source: Store
    destination: Store


def stores_of(request: RunRequest | AssembleRequest) -> Stores:
    """Open both stores of a request; nothing is asked of them yet. Raises StorageError for what can be no address."""
    source = open_store(request.source, request.source_storage)
    return Stores(source, open_store(request.destination, request.destination_storage))


def store_of(request: DestinationRequest | GenerateRequest) -> Store:
    """Open the destination of a request that has no source. Raises StorageError for what can be no address."""
    return open_store(request.destination, request.destination_storage)


def run_of(request: SearchRequest) -> Store:
    """Open the destination of the run that a request searches. Raises StorageError for what can be no address."""
    return open_store(request.run, request.run_storage)


def pictures_of_run(plan: Plan, request: ExploreRequest | SearchRequest | GcRequest) -> Store:
    """Open the store that a run's pictures came from, reached as the request says. Raises StorageError."""
    return open_store(plan.source, request.source_storage)


def objects_of(source: Store, request: RunRequest) -> Iterator[StoredObject]:
    """Return an iterator over the objects of a source that a request is about, by key. Raises StorageError."""
    return list_objects(source, request.include, request.suffixes, request.exclude)


def beside_sources(url: str, request: TrainRequest | SweepRequest | ExploreRequest) -> Store:
    """Open the store at a URL, reached as a request's sources are. Raises StorageError for what can be no address."""
    return open_store(url, request.source_storage)
