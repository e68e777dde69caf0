"""Decompression under Prefect: the task runs of `flows.develop` over streams, with a recipe without steps."""

from __future__ import annotations

from prefect import State

from flows.develop import run_job
from flows.orchestration.states import darkroom_flow, run_ended
from pipeline.requests.compression import decompression
from pipeline.requests.job import check_request
from pipeline.requests.pictures import DecompressRequest


@darkroom_flow("decompress")
def decompress(request: DecompressRequest) -> State:
    """Decompress the .drk streams of a source to pictures, or to a part of each.

    Completed or Failed as `develop` is; raises what `develop` raises.
    """
    summary = run_job(check_request(decompression(request)))
    return run_ended(request, summary, summary)
