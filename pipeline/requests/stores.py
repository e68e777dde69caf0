"""The stores that requests name: how they are reached, and opened for requests that are no `Job`.

No recipe, step or network is loaded for them, so that commands that run none start quickly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict

from models.codec.bitstream import EXTENSION
from pipeline.errors import RequestError
from pipeline.pictures.headers import named_as_picture
from pipeline.requests.form import Storage
from pipeline.storage.store import Store, StoredObject, itself, list_objects, look_up, open_store

if TYPE_CHECKING:
    from pipeline.destination.plans import Plan
    from pipeline.requests.models import ExploreRequest, GenerateRequest, SearchRequest, SweepRequest, TrainRequest
    from pipeline.requests.pictures import RunRequest
    from pipeline.requests.upkeep import AssembleRequest, DestinationRequest, GcRequest

Request = TypeVar("Request", bound="RunRequest")


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
    if request.only is not None:
        yield look_up(source, request.only)
        return
    yield from list_objects(source, request.include, request.suffixes, request.exclude)


def one_object(request: RunRequest) -> tuple[str, str] | None:
    """Return folder and key of the object that a request's source names; None where it names a folder.

    None, too, where access to the source is in a Prefect block that was not read yet. Raises StorageError where the
    source does not answer.
    """
    if request.source_block and not request.source_storage:
        return None
    return itself(request.source, request.source_storage)


def of_one_object(request: Request) -> Request:
    """Return a request whose source is one object as one for the folder of it, about that object only.

    Any other request is returned as it is. Raises RequestError where the destination ends like a picture or stream, for
    a run leaves a folder, or where filters are given; StorageError where the source does not answer.
    """
    found = None if request.only is not None else one_object(request)
    if found is None:
        return request
    # the ending is not asked for: streams and pictures are known by what they hold
    given = [name for name in ("include", "exclude") if getattr(request, name)]
    if given:
        raise RequestError(
            f"{request.source} is one file; leave out --{given[0]}, which chooses among those of a folder"
        )
    name = request.destination
    if (named_as_picture(name) or name.lower().endswith(f".{EXTENSION}")) and not names_folder(name):
        raise RequestError(f"{name} ends like a file, and a run leaves a folder; name one, such as {name}/")
    return request.model_copy(update={"source": found[0], "only": found[1]})


def names_folder(url: str) -> bool:
    """Tell whether a URL names a folder: with a slash at its end, without an ending, or as a local folder is called."""
    if url.endswith(("/", os.sep)) or not PurePosixPath(url).suffix:
        return True
    store = open_store(url)
    return store.is_local and os.path.isdir(store.root)


def beside_sources(url: str, request: TrainRequest | SweepRequest | ExploreRequest) -> Store:
    """Open the store at a URL, reached as a request's sources are. Raises StorageError for what can be no address."""
    return open_store(url, request.source_storage)
