"""Compression under Prefect: the task runs of `flows.develop` with a recipe of one codec branch."""

from __future__ import annotations

from prefect import State

from flows.develop import run_job
from flows.orchestration.states import darkroom_flow, run_ended
from pipeline.requests.compression import compression
from pipeline.requests.job import check_request
from pipeline.requests.pictures import CompressRequest


@darkroom_flow("compress")
def compress(request: CompressRequest) -> State:
    """Compress an image set to .drk streams, at a quality or to a target; every stream is decoded once and measured.

    Completed or Failed as `develop` is; raises what `develop` raises.
    """
    summary = run_job(check_request(compression(request)))
    return run_ended(request, summary, summary)
