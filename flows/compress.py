"""Compression under Prefect: the task runs of `flows.develop` with a recipe of one codec branch."""

from __future__ import annotations

from prefect import State, flow

from flows.develop import run_job
from flows.orchestration.blocks import with_blocks
from flows.orchestration.states import NAME, concluded, run_ended
from pipeline.requests.compression import compression
from pipeline.requests.job import check_request
from pipeline.requests.pictures import CompressRequest


@flow(name="compress", flow_run_name=NAME, persist_result=False)
def compress(request: CompressRequest) -> State:
    """Compress an image set to .drk streams, at a quality or to a target; every stream is decoded once and measured.

    Completed or Failed as `develop` is; raises what `develop` raises.
    """
    return concluded(request, lambda: run_ended(request, run_job(check_request(compression(with_blocks(request))))))
