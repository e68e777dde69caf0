"""Exploring the latents of a run: everything found out in one go, written beside the run as tables and one page.

Latents are found where the source is the destination of a run. Any other source is a set of pictures, which is first
developed by a recipe of the one step `represent`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from models.autoencoders.interface import Autoencoder
from models.device import choose_device
from pipeline.destination.layout import COMMITS, LEASE, PLANS, RUNS, TABLES, exploration_path, listed
from pipeline.destination.lease import Lease, hold
from pipeline.destination.parquet import to_parquet
from pipeline.destination.plans import Plan, SourcePicture, earlier_plans, shard_pictures
from pipeline.destination.run_record import Summary, keep
from pipeline.errors import RequestError
from pipeline.events import Began, Tell, silent
from pipeline.exploration.anomalies.judge import judge
from pipeline.exploration.clusters import agreement, hdbscan, kmeans, principal_components, umap_map
from pipeline.exploration.duplicates import find_duplicates, groups
from pipeline.exploration.features import LookWork, read_looks
from pipeline.exploration.findings import Findings
from pipeline.exploration.neighbours import exact_index
from pipeline.exploration.page import render_exploration
from pipeline.exploration.probes import probe, read_labels, unlabelled
from pipeline.exploration.tables import account_of, heat_path, heat_pictures, tables_of
from pipeline.exploration.vectors import LatentsSource, Vectors, find_latents, read_vectors, recipe_steps
from pipeline.networks.autoencoders import DEFAULT_MODEL
from pipeline.networks.encoders import open_autoencoder
from pipeline.requests.models import ExploreRequest
from pipeline.requests.pictures import DevelopRequest
from pipeline.requests.stores import pictures_of_run, stores_of
from pipeline.runs.finish import DevelopShards, develop, develop_here
from pipeline.runs.planning import plan_pictures
from pipeline.storage.store import Store, delete

#: nearest neighbours that are kept of every picture
NEIGHBOURS = 10
#: nearest neighbours of every picture that may be near-duplicates
_NEAREST = 5
#: looks that are taken up again together
_LOOKS_A_SHARD = 128


@dataclass(frozen=True)
class Exploration:
    """What came out of exploring: findings, and the URL of the page.

    `summary` is that of the run that gave the latents, if there was one.
    """

    findings: Findings
    report: str
    seconds: float
    summary: Summary | None = None


def explore(
    request: ExploreRequest,
    tell: Tell = silent,
    develop_shards: DevelopShards | None = None,
) -> Exploration:
    """Explore without Prefect; `Began` is told of every stage, and what `pipeline.runs.finish.run_job` tells.

    For the other parameters see `pipeline.runs.finish.run_job`. Raises RequestError when there is nothing to explore,
    and what `pipeline.runs.finish.develop` raises.
    """
    developed = representation(request)
    summary = develop(developed, tell, develop_shards) if developed else None
    return explore_latents(request, summary, tell, develop_shards)


def representation(request: ExploreRequest) -> DevelopRequest | None:
    """Make the run that gives the latents; None where the source is a run's destination and has them already.

    Raises RequestError where pictures are to be represented and no destination is named.
    """
    if earlier_plans(stores_of(request).source):
        return None
    if request.destination == request.source:
        raise RequestError(f"{request.source} holds no run; give a DESTINATION, where its latents can go")
    step = {"step": "represent"} | ({"model": request.model} if request.model else {})
    recipe = {"name": "represent", "branches": {"vectors": [step]}, "output": {"format": "none"}}
    return DevelopRequest(**request.shared(), recipe=recipe, measure=False)


def explore_latents(
    request: ExploreRequest,
    summary: Summary | None = None,
    tell: Tell = silent,
    develop_shards: DevelopShards | None = None,
) -> Exploration:
    """Explore the latents that are there, and write tables and page; see `explore`.

    Raises RequestError, StorageError, LeaseHeld.
    """
    started = datetime.now(UTC)
    tell(Began("reading latents"))
    basis = read_basis(request)
    with hold(basis.work.destination, request.take_over) as lease:
        tell(Began("looking at pictures"))
        plan = _plan_looks(basis, lease)
        (develop_shards or develop_here)(basis.work, plan, silent)
        findings = _find_out(request, basis, plan, tell)
        tell(Began("writing"))
        exploration = _write(basis, findings, started, summary)
        _remove_looks(basis.work.destination)
    return exploration


@contextmanager
def planned_looks(request: ExploreRequest) -> Iterator[tuple[LookWork, Plan]]:
    """Plan the looks of an exploration, for an engine to take while inside; `explore_latents` finds them done then.

    Raises RequestError, StorageError, LeaseHeld.
    """
    basis = read_basis(request)
    with hold(basis.work.destination, request.take_over) as lease:
        yield basis.work, _plan_looks(basis, lease)


def _write(basis: Basis, findings: Findings, started: datetime, summary: Summary | None) -> Exploration:
    """Write tables, heat maps and page, where they differ from before."""
    destination = basis.opened.destination
    place = partial(exploration_path, basis.work.exploration)
    heat = heat_pictures(findings)
    for row, data in heat.items():
        keep(destination, place(heat_path(row)), data)
    for name, rows in tables_of(findings).items():
        keep(destination, place(f"{name}.parquet"), to_parquet(name, rows))
    seconds = (datetime.now(UTC) - started).total_seconds()
    account = account_of(findings, started.isoformat(timespec="seconds"), seconds)
    keep(destination, place("explore.json"), (json.dumps(account, indent=1) + "\n").encode())
    page = render_exploration(findings, account, heat, destination.url)
    keep(destination, place("explore.html"), page.encode())
    return Exploration(findings, destination.url_of(place("explore.html")), seconds, summary)


@dataclass(frozen=True)
class Latents:
    """The latents that a request is about, the store of their pictures, and the one that findings go to."""

    source: LatentsSource
    pictures: Store
    destination: Store


def open_latents(request: ExploreRequest) -> Latents:
    """Find what a request explores. Raises RequestError when there are no latents, StorageError."""
    stores = stores_of(request)
    if earlier_plans(stores.source):
        found = find_latents(stores.source, request.model)
        return Latents(found, pictures_of_run(found.newest, request), stores.destination)
    return Latents(find_latents(stores.destination, "vectors"), stores.source, stores.destination)


def network_of(source: LatentsSource) -> tuple[Autoencoder, str] | None:
    """Open the autoencoder that made the latents, and return it with its tag; None where they are a codec's.

    Raises ModelError, StorageError.
    """
    steps = [step for step in recipe_steps(source) if step["step"] == "represent"]
    if not steps:
        return None
    opened = open_autoencoder(steps[-1].get("model", DEFAULT_MODEL))
    return opened.network, opened.model


@dataclass(frozen=True)
class Basis:
    """What an exploration goes by: the vectors, their labels, the network that made them, the looks to be taken."""

    opened: Latents
    vectors: Vectors
    labels: list[str | None] | None
    network: Autoencoder | None
    work: LookWork


def read_basis(request: ExploreRequest) -> Basis:
    """Read what a request explores. Raises RequestError when there are no latents, StorageError."""
    _check_libraries()
    opened = open_latents(request)
    vectors, network = read_vectors(opened.source, request.limit), _network(opened.source)
    # whatever is wrong with them shows before pictures are looked at
    labels = read_labels(request.labels, vectors.keys, request.source_storage) if request.labels else None
    shape = None if network is None else network.shape
    work = LookWork(request, opened.pictures, _mark(request, opened.source), shape)
    return Basis(opened, vectors, labels, network, work)


def _find_out(request: ExploreRequest, basis: Basis, looks_taken: Plan, tell: Tell) -> Findings:
    source, vectors, network = basis.opened.source, basis.vectors, basis.network
    notes: list[str] = []
    if vectors.all > len(vectors.keys):
        notes.append(f"{len(vectors.keys):,} of {vectors.all:,} pictures, evenly spaced, are explored (--limit)")
    if vectors.left_out:
        notes.append(f"{vectors.left_out:,} rows of the latents table hold no vector that fits and are left out")
    if network is None:
        notes.append(f"{source.model} is a codec: its latents are pooled, and it rebuilds no picture from them")
    labels = basis.labels
    if labels and (said := unlabelled(labels, vectors.keys)):
        notes.append(said)
    seen, failures = read_looks(basis.work, looks_taken)
    looks = [seen.get(key) for key in vectors.keys]
    gone = sum(look is None for look in looks)
    if gone:
        notes.append(f"{gone:,} pictures could not be read again; they have no thumbnail and fewer scores")
    tell(Began("neighbours"))
    # one more, for the nearest of each is itself
    similarities, rows = exact_index(vectors.keys, vectors.values).nearest(vectors.values, NEIGHBOURS + 1)
    rows, similarities = _without_self(rows, similarities)
    tell(Began("near-duplicates"))
    pairs = [(row, near) for others in rows.T[:_NEAREST] for row, near in enumerate(others.tolist()) if near >= 0]
    duplicates = find_duplicates(looks, pairs)
    tell(Began("anomalies"))
    device = choose_device(request.device)
    anomalies = judge(vectors, looks, network, device, basis.work.destination, looks_taken)
    tell(Began("clusters"))
    components = principal_components(vectors.values, request.seed)
    groups_by_mean = kmeans(components.values, request.clusters, request.seed)
    tell(Began("maps"))
    umap = umap_map(components.values, request.seed) if request.umap else None
    by_density = hdbscan(components.values[:, :10] if umap is None else umap, request.seed)
    tell(Began("probes"))
    return Findings(
        source,
        vectors,
        looks,
        components,
        umap,
        groups_by_mean,
        by_density,
        rows,
        similarities,
        duplicates,
        groups(len(vectors.keys), duplicates),
        anomalies,
        labels,
        probe(vectors.values, labels, request.seed) if labels else [],
        _agreements(labels, {"k-means": groups_by_mean.labels, "HDBSCAN": by_density.labels}),
        notes,
        failures,
    )


def _network(source: LatentsSource) -> Autoencoder | None:
    """Open the autoencoder that made the latents, as it was then; None where they are a codec's."""
    found = network_of(source)
    if found is None:
        return None
    network, tag = found
    if tag != source.model:
        raise RequestError(f"the latents are those of {source.model}, but the model there is now {tag}; develop again")
    return network


def _plan_looks(basis: Basis, lease: Lease) -> Plan:
    """Plan a look at every picture that has a vector, as its newest run knows it."""
    source, wanted = basis.opened.source, set(basis.vectors.keys)
    pictures: dict[str, SourcePicture] = {}
    for plan in source.plans:
        for shard in range(plan.shards):
            for one in shard_pictures(source.destination, plan, shard):
                if one.key in wanted:
                    pictures.setdefault(one.key, one)
    in_order = sorted(pictures.values(), key=lambda one: (one.object_key, one.frame or 0))
    return plan_pictures(basis.work, in_order, _LOOKS_A_SHARD, lease)


def _remove_looks(destination: Store) -> None:
    """Remove what was only needed until the exploration was written: the runs of looks, and their tables.

    Stopped at any point, what is left can be gone on with: what says that something is there goes before it.
    """
    for pattern in (COMMITS, f"{TABLES}/**", PLANS, f"{RUNS}/**"):
        for found in list(listed(destination, [pattern])):
            if found.key != LEASE:
                delete(destination, found.key)


def _without_self(rows: np.ndarray, similarities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop each row itself from neighbours N x K + 1, or the last where it is not among them."""
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(rows), rows.shape[1] - 1)
    return rows[~own].reshape(shape), similarities[~own].reshape(shape)


def _agreements(labels: Sequence[str | None] | None, clusters: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    rows = [row for row, label in enumerate(labels or ()) if label is not None]
    if labels is None or not rows:
        return {}
    names = np.array([labels[row] for row in rows])
    return {name: agreement(names, found[rows]) for name, found in clusters.items()}


def _mark(request: ExploreRequest, source: LatentsSource) -> str:
    """Return the exploration's name: a hash of all that decides what is found."""
    asked = {name: getattr(request, name) for name in ("labels", "clusters", "umap", "limit", "seed")}
    content = [source.model, source.branch, [plan.run for plan in source.plans], asked]
    return f"e{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]}"


def _check_libraries() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise RequestError("scikit-learn is not installed: pip install scikit-learn") from error
