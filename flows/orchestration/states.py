"""How flows are made, tried again and ended.

A flow ends in a state whose message has the counts, an event for others to wait for, and links for people to follow.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from prefect import Flow, State, Task, flow, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.assets import Asset, materialize
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows.orchestration.blocks import with_blocks
from flows.orchestration.progress import tell
from pipeline.destination.layout import table_folder
from pipeline.destination.run_record import Summary
from pipeline.destination.schemas import SCHEMAS
from pipeline.errors import StorageError
from pipeline.events import Finished
from pipeline.reports.stage_figures import share
from pipeline.requests.form import Form
from pipeline.storage.access import without_credentials

#: of flow runs: what is asked for
_NAME = "{request.says}"
COMPLETED, FAILED = "darkroom.run.completed", "darkroom.run.failed"
#: what Prefect takes for the key of an asset
_ASSET_KEY = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._~/:@-]{1,400}")
Work = TypeVar("Work", bound=Callable[..., Any])


def darkroom_flow(name: str) -> Callable[[Callable[[Any], State]], Flow[[Any], State]]:
    """Make a flow of a function that takes one request and returns the state that the flow ends in.

    The function gets the request with the access to S3 of the blocks that it names. A Ctrl-C is not recorded as a
    crash, and what stops the flow is an event, too.
    """

    def decorate(work: Callable[[Any], State]) -> Flow[[Any], State]:
        @wraps(work)
        def run(request: Any) -> State:
            try:
                return work(with_blocks(request))
            except KeyboardInterrupt:
                return Cancelled(message="stopped; the same request goes on where this run ended")
            except Exception as error:
                _emit(FAILED, request, {"message": without_credentials(f"{type(error).__name__}: {error}")[:2000]})
                raise

        # Prefect reads the types of parameters, and cannot look up their names from here
        run.__signature__ = inspect.signature(work, eval_str=True)  # type: ignore[attr-defined]
        return flow(name=name, flow_run_name=_NAME, persist_result=False)(run)

    return decorate


def retried(name: str) -> Callable[[Work], Work]:
    """Make a task of a function whose work may be begun again, and is where storage did not answer.

    `name` is that of its runs, such as "verify {request.destination}".
    """
    made: Any = task(
        task_run_name=name,
        retries=3,
        retry_delay_seconds=[5, 30, 120],
        retry_condition_fn=worth_retrying,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    return made


def worth_retrying(_task: Task[..., Any], _run: TaskRun, state: State) -> bool:
    """Tell whether a task run is worth trying again: storage that does not answer now may later, other errors stay."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StorageError) and error.kind in ("unreachable", "transient")


def ended(
    request: Form,
    result: object,
    message: str,
    failed: bool = False,
    data: Any = None,
    facts: Mapping[str, Any] | None = None,
) -> State:
    """Tell the result of a flow that came to its end, and return its last state.

    `data` goes with the state, `facts` go with the event in Prefect that says so.
    """
    _emit(FAILED if failed else COMPLETED, request, {"message": message} | dict(facts or {}))
    tell(Finished(result))
    return Failed(message=message, data=data) if failed else Completed(message=message, data=data)


def run_ended(request: Form, result: object, summary: Summary, report: str | None = None) -> State:
    """Tell the result of a flow over pictures; return its last state: Failed when too many failed, else Completed."""
    facts = {
        "run": summary.run,
        "status": summary.status,
        "counts": summary.counts,
        "reasons": summary.reasons,
        "report": report or summary.report,
        "tables": table_urls(request, summary.run),
    }
    return ended(request, result, message_of(summary), failed=summary.status == "failed", facts=facts)


def message_of(summary: Summary) -> str:
    """Say counts, what went wrong, and the name of a run: 26 pictures, 2 failed, 130 rows (run r0123456789ab)."""
    counts = summary.counts
    if summary.status == "nothing_to_do":
        said = f"nothing to do, {counts['done']:,} pictures done before"
        said += f", {counts['done_failed']:,} of them failed" if counts.get("done_failed") else ""
    elif summary.status == "nothing_failed":
        said = "nothing to try again, no picture has failed"
    else:
        left_out = counts.get("left_out", 0)
        said = f"{counts['objects'] - left_out:,} pictures, {counts['failed']:,} failed"
        said += f", {counts['partial']:,} in part" if counts.get("partial") else ""
        said += f", {counts['damaged']:,} damaged" if counts.get("damaged") else ""
        said += f", {counts['warned']:,} results to be looked at" if counts.get("warned") else ""
        said += f", {left_out:,} other files left out" if left_out else ""
        # suites have no rows a branch
        said += f", {counts['rows']:,} rows" if "rows" in counts else ""
    return f"{said} (run {summary.run})" + (f": {summary.message}" if summary.message else "")


def table_urls(request: Any, run: str) -> dict[str, str]:
    """Return the URLs of the tables of a run by name, for readers of Hive-partitioned Parquet."""
    return {name: f"{_url(request.destination)}/{table_folder(name, run)}" for name in SCHEMAS}


def artifact_key(what: str) -> str:
    """Return the key of an artifact that a run over pictures leaves, whichever flow it is of; only inside one."""
    # somebody may have given the flow a name that keys of Prefect cannot have
    flow = re.sub(r"[^a-z0-9]+", "-", str(flow_run.flow_name).lower()).strip("-")
    return f"{flow}-{what}"


def leave_tables(request: Any, summary: Summary) -> None:
    """Leave artifacts of a run: means of branches, stages with what they waited for, where tables are.

    Tables are declared as assets, too.
    """
    if summary.branches:
        rows = [rounded(row) for row in summary.branches]
        create_table_artifact(rows, key=artifact_key("summary"), description=f"Run {summary.run}, means over pictures")
    if summary.stages:
        stages = [
            {
                "stage": stage,
                "busy seconds": round(figures["busy_s"], 2),
                "waiting seconds": round(max(0.0, figures["threads_s"] - figures["busy_s"]), 2),
                "busy": f"{share(figures):.0%}",
            }
            for stage, figures in summary.stages.items()
        ]
        create_table_artifact(stages, key=artifact_key("stages"), description=f"Run {summary.run}, where its time went")
    if summary.counts["objects"]:
        urls = table_urls(request, summary.run)
        places = [{"table": name, "where": url} for name, url in urls.items()]
        create_table_artifact(places, key=artifact_key("tables"), description=f"Run {summary.run}, Parquet to read")
        _declare([url.partition("/run=")[0] for url in urls.values()])


def _declare(urls: list[str]) -> None:
    """Say which assets were made. Prefect's own server keeps it as events; its cloud shows what came of what."""
    keys = [url for url in urls if _ASSET_KEY.fullmatch(url)]
    if keys:
        assets = [Asset(key=key) for key in keys]
        materialize(*assets, by="darkroom", name="outputs", cache_policy=NO_CACHE, persist_result=False)(_nothing)()


def _nothing() -> None:
    """Do nothing: the work was done by the shards."""


def link_report(report: str, text: str, key: str) -> None:
    """Leave a link to a page at the destination."""
    create_link_artifact(_url(report), link_text=text, key=key, description=text)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Round the figures of a row to as many decimals as people read."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def _url(place: str) -> str:
    place = without_credentials(place).rstrip("/")
    return place if "://" in place else Path(place).absolute().as_uri()


def _emit(event: str, request: Any, payload: dict[str, Any]) -> None:
    place = str(getattr(request, "destination", None) or getattr(request, "model", ""))
    resource = {
        "prefect.resource.id": _url(place),
        "prefect.resource.name": without_credentials(place),
        "prefect.resource.role": "output",
    }
    asked = {"flow": request.verb, "asked": request.says, "destination": _url(place)}
    emit_event(event, resource=resource, payload=asked | payload)
