"""A request for a suite, checked before anything runs: baselines that are installed, networks, published figures."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import RequestError
from pipeline.requests.pictures import EvaluateRequest
from pipeline.requests.stores import Stores, of_one_object, stores_of
from pipeline.storage.store import check_access
from pipeline.suites.kinds import SUITES
from pipeline.suites.networks import Chosen, choose_networks
from pipeline.suites.published import CROPS, guess_set, published_rows, published_sets, read_published
from pipeline.suites.suite import Suite


@dataclass(frozen=True)
class SuiteRun:
    """A checked request for a suite, of one object where its source is one.

    With its stores, the suite with the baselines that are installed, and networks. `dataset` is the set the pictures
    are, as far as it is known, with its published rows; `notes` are for people.
    """

    request: EvaluateRequest
    stores: Stores
    suite: Suite
    networks: list[Chosen]
    dataset: str | None
    published: list[dict[str, Any]]
    notes: list[str]


def prepare_suite(request: EvaluateRequest) -> SuiteRun:
    """Check a request with a suite, and that both stores answer. Raises RequestError, ModelError, StorageError."""
    request = of_one_object(request)
    assert request.suite is not None
    notes: list[str] = []
    suite = installed(SUITES[request.suite])
    missing = [method.label for method in SUITES[request.suite].methods if method not in suite.methods]
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        notes.append(f"Left out, for they are not installed: {names}; pip install pywavelets.")
    networks = choose_networks(suite, request.model)
    without = [s.label for s in suite.settings if s.task not in {each.task for each in networks}]
    if without:
        notes.append(f"No network for {', '.join(without)}: none is shipped, and --model names none.")
    dataset, published = _published(request, notes)
    stores = stores_of(request)
    if request.only is None:
        check_access(stores.source, for_writing=False)
    check_access(stores.destination, for_writing=True)
    return SuiteRun(request, stores, suite, networks, dataset, published, notes)


def installed(suite: Suite) -> Suite:
    """Return the suite with those of its baselines that can run here."""
    there = [method for method in suite.methods if not method.needs or importlib.util.find_spec(method.needs)]
    return replace(suite, methods=tuple(there))


def _published(request: EvaluateRequest, notes: list[str]) -> tuple[str | None, list[dict[str, Any]]]:
    if not request.published:
        return request.set, []
    assert request.suite is not None
    figures = read_published(request.published)
    sets = published_sets(figures, request.suite, request.grey)
    if request.set is not None and request.set not in sets:
        there = f"there are of {', '.join(sets)}" if sets else f"there are none for {request.suite}"
        raise RequestError(f"there are no published figures of the set {request.set!r}; {there}")
    dataset = request.set or guess_set(request.source, sets)
    if dataset is None:
        there = f"there are figures of {', '.join(sets)}; name one with --set" if sets else "the file has none"
        notes.append(f"No published figures of {request.suite} are shown: {there}.")
        return None, []
    side = CROPS.get(dataset) if request.suite == "denoise" else None
    if side is not None and request.crop != side and request.set is None:
        notes.append(f"Published figures of {dataset} are of crops of {side} x {side}: --crop {side} shows them.")
        return dataset, []
    return dataset, published_rows(figures, request.suite, dataset, request.grey)
