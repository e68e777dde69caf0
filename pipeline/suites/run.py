"""A suite over all pictures of a source: a part for every picture, written last; then means, tables and a report.

Runs are named by what they measure, so the same command finds its parts again: a picture whose part exists is not
measured twice, and a run that was killed goes on. Other published figures need nothing measured again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import cv2
from PIL import Image

from models.device import choose_device
from pipeline.destination.layout import listed, measured_of, measured_path, number_of, read_json, strip_path
from pipeline.destination.lease import hold
from pipeline.destination.plans import Plan
from pipeline.errors import PictureError, PlanError, StorageError
from pipeline.networks.batching import Batcher
from pipeline.pictures.decode import decode
from pipeline.requests.pictures import EvaluateRequest
from pipeline.requests.stores import Stores
from pipeline.runs.forecast import Forecast
from pipeline.runs.planning import own_prefix
from pipeline.shards.memory import MemoryBudget, memory_for_pictures
from pipeline.storage.store import Store, StoredObject, list_objects, read, write
from pipeline.suites.conclude import SuiteEvaluation, conclude
from pipeline.suites.measure import Outcome, as_measured, failure, measure_picture
from pipeline.suites.networks import network_methods
from pipeline.suites.prepare import SuiteRun, prepare_suite
from pipeline.suites.suite import Suite
from pipeline.threads import cores

#: raised when a suite measures something else than before, so that old parts are not taken for new ones
VERSION = 1
#: what a suite takes for each pixel of a picture, all its results and float copies together
_BYTES_PER_PIXEL = 250
#: the largest picture that is measured
MOST_PIXELS = 16_000_000


def evaluate_suite(
    request: EvaluateRequest,
    planned: Callable[[Plan], None] = lambda plan: None,
    progress: Callable[[bool], None] = lambda good: None,
    listing: Callable[[int], None] = lambda count: None,
) -> SuiteEvaluation:
    """Run a request's suite in this process; `planned` is told the plan, `progress` every picture (True: good).

    `listing` is told how many objects there are. Raises RequestError, ModelError, PlanError, LeaseHeld, StorageError
    when it cannot start, LeaseLost when another run takes the destination over, StorageError when storage fails for
    good; running again goes on where it stopped.
    """
    started = datetime.now(UTC)
    prepared = prepare_suite(request)
    found = _listing(request, prepared.stores)
    listing(len(found))
    # only now, so that a request that cannot be met leaves nothing at the destination
    with hold(prepared.stores.destination, request.take_over) as lease:

        def measured(good: bool) -> None:
            if lease.lost:
                lease.confirm()
            progress(good)

        return _evaluate(request, prepared, found, started, planned, measured)


def _evaluate(
    request: EvaluateRequest,
    prepared: SuiteRun,
    found: Sequence[StoredObject],
    started: datetime,
    planned: Callable[[Plan], None],
    progress: Callable[[bool], None],
) -> SuiteEvaluation:
    plan, todo = _what_to_do(request, prepared, found)
    planned(plan)
    if todo:
        _measure(request, prepared, plan.run, found, todo, progress)
    parts = read_parts(prepared.stores.destination, plan.run)
    return conclude(request, prepared, plan, [parts[number] for number in range(len(found))], started)


def forecast_suite(request: EvaluateRequest) -> Forecast:
    """What it would do, and nothing is written. Raises what `evaluate_suite` raises before it begins."""
    prepared = prepare_suite(request)
    found = _listing(request, prepared.stores)
    plan, todo = _what_to_do(request, prepared, found)
    size = sum(found[number].size for number in todo)
    status: Literal["resume", "develop", "nothing_to_do"] = "develop" if todo else "nothing_to_do"
    if plan.resumed:
        status = "resume"
    run = plan.run if plan.resumed else None
    ends = (request.source, request.destination)
    return Forecast(status, *ends, len(todo), size, plan.shards, plan.done, (f"suite {request.suite}",), run)


def _what_to_do(request: EvaluateRequest, prepared: SuiteRun, found: Sequence[StoredObject]) -> tuple[Plan, list[int]]:
    """The plan, and the numbers in the listing of pictures that are not measured yet."""
    plan = _plan(request, prepared, found)
    parts = {} if request.fresh else read_parts(prepared.stores.destination, plan.run)
    todo = [number for number in range(len(found)) if number not in parts or parts[number]["again"]]
    done = len(found) - len(todo)
    resumed = 0 < done < len(found)
    return replace(plan, objects=len(todo), shards=min(1, len(todo)), done=done, resumed=resumed), todo


def _listing(request: EvaluateRequest, stores: Stores) -> list[StoredObject]:
    source = stores.source
    own = own_prefix(source, stores.destination)
    everything = list_objects(source, request.include, request.suffixes, request.exclude)
    found = [entry for entry in everything if own is None or not entry.key.startswith(own)]
    if not found:
        raise PlanError(
            f"{source.url} holds no objects that match; check the folder, --include, --exclude and --suffixes"
        )
    return found


def _plan(request: EvaluateRequest, prepared: SuiteRun, found: Sequence[StoredObject]) -> Plan:
    """The run's name is a hash of all that decides its figures."""
    source = prepared.stores.source.url
    work: dict[str, Any] = {"version": VERSION, "suite": prepared.suite.name, "source": source}
    work |= {name: getattr(request, name) for name in ("crop", "grey", "seed", "pixel_limit")}
    work |= {"methods": [method.name for method in prepared.suite.methods]}
    work |= {"models": [each.network.model for each in prepared.networks]}
    mark = hashlib.sha256(json.dumps(work).encode()).hexdigest()
    listing = json.dumps([[entry.key, entry.etag, entry.size] for entry in found])
    run = f"s{hashlib.sha256((mark + listing).encode()).hexdigest()[:12]}"
    return Plan(run, mark, source, 0, len(found), 1)


def read_parts(destination: Store, run: str) -> dict[int, dict[str, Any]]:
    """What was measured of each picture so far, by its number in the listing."""
    keys = [entry.key for entry in listed(destination, [measured_of(run)])]
    return {number_of(key): read_json(destination, key) for key in keys}


def _measure(
    request: EvaluateRequest,
    prepared: SuiteRun,
    run: str,
    found: Sequence[StoredObject],
    todo: Sequence[int],
    progress: Callable[[bool], None],
) -> None:
    # first, middle and last are what people get to see
    shown = {0, len(found) // 2, len(found) - 1}
    threads = cv2.getNumThreads()
    # OpenCV's own threads would fight with ours
    cv2.setNumThreads(1)
    workers = ThreadPoolExecutor(request.workers or cores(), thread_name_prefix="suite")
    try:
        with Batcher(choose_device(request.device), request.batch) as device:
            methods = [*prepared.suite.methods, *network_methods(prepared.suite, prepared.networks, device.apply)]
            suite = replace(prepared.suite, methods=tuple(methods))
            one = partial(_one, request, prepared.stores, suite, run, MemoryBudget(memory_for_pictures(request.memory)))
            try:
                jobs = [workers.submit(one, found[n], n, n in shown) for n in todo]
                for job in as_completed(jobs):
                    progress(job.result())
            finally:
                # pictures under way still need the device
                workers.shutdown(cancel_futures=True)
    finally:
        cv2.setNumThreads(threads)


def _one(
    request: EvaluateRequest,
    stores: Stores,
    suite: Suite,
    run: str,
    memory: MemoryBudget,
    entry: StoredObject,
    number: int,
    shown: bool,
) -> bool:
    """Measure a picture and write its strips and its part; says whether there are any scores."""
    destination, again = stores.destination, False
    outcome = Outcome()
    try:
        data = read(stores.source, entry.key, size=entry.size)
        pixels = decode(data, entry.key, min(request.pixel_limit, MOST_PIXELS)).colour
        clean = as_measured(pixels, request.crop, request.grey)
    except StorageError as error:
        if error.kind == "unreachable":
            raise
        # another run may be able to read it
        again = True
        outcome.failures.append(failure(entry.key, None, "read_error", str(error)))
    except PictureError as error:
        outcome.failures.append(failure(entry.key, None, error.reason, error.message))
    else:
        taken = memory.take(_BYTES_PER_PIXEL * clean.shape[0] * clean.shape[1])
        try:
            outcome = measure_picture(entry.key, clean, suite, request.seed, shown)
        finally:
            memory.give_back(taken)
    strips = {}
    for setting, strip in outcome.strips.items():
        strips[setting] = strip_path(run, setting, number)
        buffer = io.BytesIO()
        Image.fromarray(strip).save(buffer, "PNG")
        write(destination, strips[setting], buffer.getvalue())
    part = {"key": entry.key, "again": again, "strips": strips}
    part |= {"scores": outcome.scores, "failures": outcome.failures}
    write(destination, measured_path(run, number), (json.dumps(part) + "\n").encode())
    return bool(outcome.scores)
