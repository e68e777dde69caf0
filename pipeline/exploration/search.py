"""The pictures of a run that are most similar to a given one: represented as the run did it, then looked up."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from markupsafe import Markup

from models.device import choose_device
from models.inference import apply_in_batches
from pipeline.destination.parquet import to_parquet
from pipeline.destination.plans import SourcePicture, shard_pictures
from pipeline.errors import PictureError, RequestError, StorageError
from pipeline.exploration.features import Look, look_at
from pipeline.exploration.neighbours import open_index
from pipeline.exploration.page import data_uri
from pipeline.exploration.vectors import LatentsSource, find_latents, recipe_steps, vectors_of
from pipeline.frames.shared_file import SharedFile
from pipeline.pictures.decode import decode
from pipeline.reports.page import asset, environment
from pipeline.requests.job import Settings
from pipeline.requests.models import SearchRequest
from pipeline.requests.recipe import open_networks, parse_recipe
from pipeline.requests.stores import pictures_of_run, run_of
from pipeline.shards.picture import develop_picture
from pipeline.storage.store import StorageOptions, Store, open_store, read, write

#: pictures that a page shows
MOST_SHOWN = 200
_QUERY = "query"


@dataclass(frozen=True)
class Found:
    """What is like the picture: keys with cosines -1..1, nearest first, of `all` pictures; `page` is a URL or None."""

    model: str
    pictures: list[tuple[str, float]]
    all: int
    page: str | None


def search(request: SearchRequest) -> Found:
    """Look a picture up. Raises RequestError, ModelError, DeviceError, PictureError, StorageError."""
    choose_device(request.device)
    source = find_latents(run_of(request), request.model)
    store, name = _split(request.picture, request.picture_storage)
    data = read(store, name)
    vector = _vector(source, data, name, request)
    index = open_index(source)
    if vector.shape[1] != len(index.mean):
        raise RequestError(f"the picture gives {vector.shape[1]} numbers, the run's latents {len(index.mean)}")
    similarities, rows = index.nearest(vector, request.count)
    pictures = [
        (index.keys[row], float(similarity))
        for row, similarity in zip(rows[0].tolist(), similarities[0].tolist(), strict=True)
        if row >= 0
    ]
    page = _write_page(request, source, data, name, pictures, len(index.keys)) if request.page else None
    return Found(source.model, pictures, len(index.keys), page)


def _split(url: str, options: StorageOptions | None) -> tuple[Store, str]:
    """Return the store a file is in, and its name there."""
    folder, slash, name = url.rpartition("/")
    return open_store(folder or ("/" if slash else "."), options), name


def _vector(source: LatentsSource, data: bytes, name: str, request: SearchRequest) -> np.ndarray:
    """Compute what the branch that wrote the latents makes of the picture, 1 x D float32."""
    branches = {source.branch: recipe_steps(source)}
    recipe = open_networks(parse_recipe({"name": _QUERY, "branches": branches, "output": {"format": "none"}}))
    one = SourcePicture(name, name, len(data), "", None)
    apply = partial(apply_in_batches, device=choose_device(request.device))
    developed = develop_picture(one, data, recipe, Settings(request.pixel_limit, measure=False, strict=True), apply)
    if developed.failures:
        failure = developed.failures[0]
        raise PictureError(failure["reason"], f"{request.picture}: {failure['message']}")
    latents = developed.rows["latents"]
    if latents[0]["model"] != source.model:
        said = f"the latents are those of {source.model}, but the model there is now {latents[0]['model']}"
        raise RequestError(f"{said}; develop again")
    rows = to_parquet("latents", [row | {"shard": 0, "sequence": 0} for row in latents])
    keys, vectors = vectors_of(pq.read_table(io.BytesIO(rows)))
    if not keys:
        raise RequestError(f"{source.model} says nothing of {request.picture} that could be looked up")
    return vectors


def _write_page(
    request: SearchRequest,
    source: LatentsSource,
    data: bytes,
    name: str,
    pictures: Sequence[tuple[str, float]],
    count: int,
) -> str:
    """Write a page with the picture and what was found; return its URL."""
    assert request.page is not None
    shown = pictures[:MOST_SHOWN]
    wanted, planned = {key for key, _ in shown}, dict[str, SourcePicture]()
    for plan in source.plans:
        for shard in range(plan.shards):
            for one in shard_pictures(source.destination, plan, shard):
                if one.key in wanted:
                    planned.setdefault(one.key, one)
    where = pictures_of_run(source.newest, request)
    looks = {key: _look(where, one, request.pixel_limit) for key, one in planned.items()}
    query = look_at(decode(data, name, request.pixel_limit), None, False)
    page = (
        environment()
        .get_template("search.html")
        .render(
            query=_shown(request.picture, query, ""),
            pictures=[_shown(key, looks.get(key), f"{similarity:.3f}") for key, similarity in shown],
            run=request.run,
            model=source.model,
            count=count,
            css=Markup("\n".join(asset(sheet) for sheet in ("report.css", "evaluation.css", "explore.css"))),
        )
    )
    store, path = _split(request.page, request.run_storage)
    write(store, path, page.encode("utf-8", "replace"))
    return store.url_of(path)


def _look(store: Store, one: SourcePicture, pixel_limit: int) -> Look | None:
    """Look at a picture; None where it is gone or cannot be read now. Raises StorageError when nothing answers."""
    try:
        if one.frame is None:
            return look_at(decode(read(store, one.object_key), one.object_key, pixel_limit), None, False)
        with closing(SharedFile(store, one.object_key, one.size, [one.frame], pixel_limit)) as file:
            file.fetch()
            return look_at(file.read(one.frame, one.key).picture, None, False)
    except PictureError:
        return None
    except StorageError as error:
        if error.kind == "unreachable":
            raise
        return None


def _shown(key: str, look: Look | None, text: str) -> dict[str, Any]:
    return {"key": key, "picture": None if look is None else data_uri(look.thumbnail), "text": text}


def as_plain(found: Found) -> dict[str, Any]:
    """Turn what was found into plain data for other programs."""
    pictures = [{"key": key, "similarity": round(similarity, 6)} for key, similarity in found.pictures]
    return {"model": found.model, "searched": found.all, "pictures": pictures}
