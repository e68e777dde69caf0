"""What a second Dask worker gains, and what it costs to hand a shard to one.

Speed-up: a CPU-bound recipe (non-local means) over one-thread workers, one and two of them alternately, workers started
and warm; medians. Cost: shards of one picture that are committed already, so that nothing is left to do, as plain
calls, mapped over Dask, and as a Prefect task run each under a real server; what is above the plain calls is the cost.

python -m tests.benchmarks.two_workers [--pictures 48] [--shards 60] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.requests.job import resolve
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop
from pipeline.runs.planning import plan_run
from tests.benchmarks.measuring import write_photographs

SLOW: dict[str, Any] = {"branches": {"a": [{"step": "non_local_means"}]}, "output": {"format": "jpeg"}}
QUICK: dict[str, Any] = {"branches": {"a": [{"step": "gamma"}]}, "output": {"format": "jpeg"}}
PICTURES_A_SHARD = 2


def main() -> None:
    """Print both, and write them down if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--shards", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Prefect and Dask read their settings when they are imported
    os.environ |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    os.environ |= {"PREFECT_LOGGING_LEVEL": "ERROR", "DASK_LOGGING__DISTRIBUTED": "critical"}
    with tempfile.TemporaryDirectory(prefix="darkroom-workers-") as name:
        folder = Path(name)
        found = _speed_up(folder, options.pictures, options.repeats) | _costs(folder, options.shards, options.repeats)
    table = Table(title=f"{os.cpu_count()} cores", title_justify="left")
    table.add_column("what")
    table.add_column("found", justify="right")
    for what, value in found.items():
        table.add_row(what.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def _speed_up(folder: Path, pictures: int, repeats: int) -> dict[str, Any]:
    """Pictures a second with one worker and with two, by turns."""
    source = folder / "pictures"
    source.mkdir()
    write_photographs(source, pictures, 600, 416)
    rates: dict[int, list[float]] = {1: [], 2: []}
    with _workers(1) as one, _workers(2) as two:
        for number in range(repeats + 1):
            for count, client in ((1, one), (2, two)):
                request = _request(source, folder / f"out-{number}-{count}", SLOW, PICTURES_A_SHARD, workers=1)
                seconds = _timed(client, request)
                # the first turn loads libraries
                if number:
                    rates[count].append(pictures / seconds)
    medians = {count: statistics.median(each) for count, each in rates.items()}
    return {
        "pictures": pictures,
        "pictures_a_second_of_one_worker": medians[1],
        "pictures_a_second_of_two_workers": medians[2],
        "speed_up": medians[2] / medians[1],
        "speed_ups": [round(two / one, 3) for one, two in zip(rates[1], rates[2], strict=True)],
    }


@contextlib.contextmanager
def _workers(count: int) -> Iterator[Any]:
    from distributed import Client

    from flows.orchestration.dask import local_cluster

    with local_cluster(_request("-", "-", SLOW, 1, workers=count)) as cluster, Client(cluster) as client:
        client.wait_for_workers(count)
        yield client


def _timed(client: Any, request: DevelopRequest) -> float:
    """Seconds from the first shard's beginning to the last one's end."""
    from flows.orchestration.dask import StopEvent
    from flows.orchestration.engine import Engine, Work, outcomes, plain_shard

    job = resolve(request)
    plan = plan_run(job)
    threads = sum(client.nthreads().values())

    def submit(shard: int) -> Any:
        return client.submit(plain_shard, Work.of(job), plan, shard, StopEvent("never"), pure=False)

    started = time.perf_counter()
    for _ in outcomes(range(plan.shards), Engine(submit, lambda: None, lambda: threads)):
        pass
    return time.perf_counter() - started


def _costs(folder: Path, shards: int, repeats: int) -> dict[str, Any]:
    """Milliseconds a shard without work, by the way it is given to whoever does it."""
    from prefect import flow
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    from flows.orchestration.dask import dask_engine
    from flows.orchestration.engine import Work, outcomes, plain_shard
    from flows.orchestration.task_runs import develop_shard

    source = folder / "small"
    source.mkdir()
    write_photographs(source, shards, 48, 32)
    request = _request(source, folder / "costs", QUICK, 1, engine="dask", workers=2)
    job = resolve(request)
    plan = plan_run(job)
    develop(request.model_copy(update={"workers": 1}))

    def plain() -> list[float]:
        return [_seconds(lambda: [plain_shard(Work.of(job), plan, n, bool) for n in range(shards)]) for _ in passes]

    @flow
    def by_dask(each_a_task_run: bool) -> list[float]:
        # the processes of the workers tell the same server
        environment = {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
        with dask_engine(job, plan, develop_shard if each_a_task_run else None, environment) as engine:
            return [_seconds(lambda: list(outcomes(range(shards), engine))) for _ in passes]

    passes = range(repeats + 1)
    with prefect_test_harness(300):
        taken = {"plain_call": plain(), "mapped_over_dask": by_dask(False), "prefect_task_run": by_dask(True)}
    each = {way: 1000 * statistics.median(seconds[1:]) / shards for way, seconds in taken.items()}
    return {"shards": shards} | {f"ms_a_shard_{way}": value for way, value in each.items()}


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _request(source: object, destination: object, recipe: Any, shard_size: int, **more: Any) -> DevelopRequest:
    changes: dict[str, Any] = {"shard_size": shard_size, "device": "cpu", "measure": False} | more
    return DevelopRequest(source=str(source), destination=str(destination), recipe=recipe, **changes)


if __name__ == "__main__":
    main()
