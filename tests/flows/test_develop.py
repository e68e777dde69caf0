"""The main job under a real Prefect server, from a real S3 service to a real S3 service."""

from __future__ import annotations

import io
import json
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL
from prefect.states import Completed, Failed

from flows.develop import develop
from flows.orchestration import engine, task_runs
from flows.orchestration.blocks import S3Access, with_blocks
from flows.orchestration.progress import listen
from flows.orchestration.states import worth_retrying
from flows.orchestration.task_runs import develop_shard
from pipeline.destination.commits import Commit
from pipeline.destination.plans import Plan
from pipeline.destination.schemas import SCHEMAS
from pipeline.errors import RequestError, StorageError
from pipeline.events import Advanced, Finished, Planned
from pipeline.requests.job import Job
from pipeline.requests.pictures import DevelopRequest
from pipeline.requests.stores import Access
from pipeline.runs import finish as pipeline_run
from pipeline.shards.shard import run_shard
from pipeline.storage.store import StorageOptions, Store, list_objects, open_store, read, write
from tests.runs import QUICK, TIMINGS, picture_file, request

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def pictures(s3_store: Store) -> Store:
    """Five pictures and one file that is none, in a bucket: two shards of three."""
    for number in range(5):
        write(s3_store, f"{number}.png", picture_file(number))
    write(s3_store, "bad.png", b"no picture")
    return s3_store


def run_flow(asked: DevelopRequest) -> tuple[State, dict[type, list[Any]]]:
    """The flow's final state, and everything it told while it ran."""
    told: dict[type, list[Any]] = {}
    with listen(lambda event: told.setdefault(type(event), []).append(event)):
        state = develop(asked, return_state=True)
    return state, told


def artifacts(flow_run: FlowRun) -> dict[str, Any]:
    """What the server keeps of a flow run's artifacts, by key."""
    with get_client(sync_client=True) as client:
        kept = client.read_artifacts(flow_run_filter=FlowRunFilter(id={"any_": [flow_run.id]}))  # type: ignore[arg-type]
    return {artifact.key: artifact for artifact in kept if artifact.key}


def last_flow_run() -> FlowRun:
    """The flow run that began last."""
    with get_client(sync_client=True) as client:
        return max(client.read_flow_runs(), key=lambda run: str(run.created))


def events(name: str, resource: str) -> list[dict[str, Any]]:
    """What the server has been told of a resource, waited for: events travel beside the run."""
    asked = {"filter": {"event": {"name": [name]}, "resource": {"id": [resource]}}}
    until = time.monotonic() + 60
    while True:
        answer = httpx.post(f"{PREFECT_API_URL.value()}/events/filter", json=asked, timeout=30)
        found = answer.raise_for_status().json()["events"]
        if found or time.monotonic() > until:
            return found
        time.sleep(0.2)


def parts(destination: Store) -> dict[str, Any]:
    """Every part of every table: its bytes, but of the metrics its rows without the timings."""
    found = {}
    for name in SCHEMAS:
        for entry in list_objects(destination, [f"tables/{name}/**"]):
            data = read(destination, entry.key)
            found[entry.key] = data
            if name == "metrics":
                columns = [column for column in SCHEMAS[name].names if column not in TIMINGS]
                found[entry.key] = pq.read_table(io.BytesIO(data), columns=columns).to_pylist()
    return found


def test_s3_to_s3_completes_with_artifacts_and_the_tables_of_a_plain_run(
    pictures: Store, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State Completed; summary, progress, failures and report as artifacts; tables as without Prefect."""
    out = f"s3://{bucket}/out"
    ran: list[int] = []

    def noted(job: Job, plan: Plan, shard: int, *others: Any, **more: Any) -> Commit:
        ran.append(shard)
        return run_shard(job, plan, shard, *others, **more)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run_shard", noted)
        state, told = run_flow(request(pictures.url, out))
    assert sorted(ran) == [0, 1], "one task run is one shard, never one picture"
    summary = told[Finished][0].result
    assert (state.type.value, state.message) == ("COMPLETED", f"6 pictures, 1 failed, 10 rows (run {summary.run})")
    assert (summary.counts["good"], summary.counts["failed"]) == (5, 1)
    assert sorted(one.good for one in told[Advanced]) == [False] + [True] * 5
    assert told[Planned][0].shards == 2

    kept = artifacts(last_flow_run())
    names = ("summary", "failures", "report", "progress", "stages", "tables")
    assert set(kept) == {f"develop-{name}" for name in names}
    assert {row["branch"] for row in json.loads(kept["develop-summary"].data)} == set(QUICK["branches"])
    (failure,) = json.loads(kept["develop-failures"].data)
    assert (failure["key"], failure["reason"]) == ("bad.png", "not_an_image")
    assert kept["develop-progress"].data == 100.0
    assert f"{out}/runs/{summary.run}/report.html" in kept["develop-report"].data

    assert last_flow_run().name == f"develop own recipe: {pictures.url} -> {out}"
    stages = json.loads(kept["develop-stages"].data)
    assert all(row["busy seconds"] >= 0 for row in stages)
    (event,) = events("darkroom.run.completed", out)
    assert event["payload"]["counts"] == summary.counts
    assert event["payload"]["message"] == state.message
    metrics = event["payload"]["tables"]["metrics"]
    assert metrics == f"{out}/tables/metrics/run={summary.run}/"
    assert list(list_objects(open_store(metrics)))
    # Prefect's own server keeps assets as events
    assert events("prefect.asset.materialization.succeeded", f"{out}/tables/metrics")

    plain = pipeline_run.develop(request(pictures.url, f"s3://{bucket}/plain"))
    assert plain.run == summary.run
    assert parts(open_store(out)) == parts(open_store(f"s3://{bucket}/plain"))
    assert len(parts(open_store(out))) == 8

    again, told = run_flow(request(pictures.url, out))
    assert (again.type.value, told[Finished][0].result.status) == ("COMPLETED", "nothing_to_do")
    assert Advanced not in told


def test_too_many_failures_are_a_failed_state_with_everything_kept(pictures: Store, bucket: str) -> None:
    """One bad file of six above a limit of none: state Failed, its message says so, the good five are there."""
    state, told = run_flow(request(pictures.url, f"s3://{bucket}/out", max_failure_rate=0))
    assert state.is_failed()
    assert str(state.message).startswith("6 pictures, 1 failed, 10 rows")
    assert "1 of 6 pictures failed" in str(state.message)
    (event,) = events("darkroom.run.failed", f"s3://{bucket}/out")
    assert event["payload"]["counts"]["failed"] == 1
    assert told[Finished][0].result.status == "failed"
    assert len(list(list_objects(open_store(f"s3://{bucket}/out"), ["pictures/gamma/*"]))) == 5
    assert "develop-report" in artifacts(last_flow_run())


def test_secrets_reach_neither_the_server_nor_its_logs(
    pictures: Store, bucket: str, s3_options: StorageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request with credentials runs, and nothing that the server stores or the logs say holds the secret."""
    assert s3_options.secret is not None
    secret = s3_options.secret.get_secret_value()
    asked = request(
        pictures.url, f"s3://{bucket}/out", source_storage=s3_options, destination_storage=s3_options, device="cpu"
    )
    monkeypatch.setenv("DARKROOM_S3_SECRET", "not the right one")
    state, _ = run_flow(asked)
    assert state.is_completed()
    flow_run = last_flow_run()
    assert flow_run.parameters["request"]["source"] == pictures.url
    assert flow_run.parameters["request"]["source_storage"]["secret"] == "*" * 10
    APILogWorker.drain_all(timeout=30)
    with get_client(sync_client=True) as client:
        told = [*client.read_task_runs(), *client.read_artifacts(), *client.read_logs()]
    for thing in [*told, flow_run]:
        assert secret not in thing.model_dump_json(), type(thing)
    database = Path(str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value()).partition("///")[2])
    files = list(database.parent.glob(f"{database.name}*"))
    assert any(flow_run.name.encode() in path.read_bytes() for path in files)
    assert not any(secret.encode() in path.read_bytes() for path in files)


def test_a_saved_block_gives_access_by_name(
    pictures: Store, bucket: str, s3_options: StorageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With credentials in a block only, not in the environment, the flow reads and writes S3."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    fields = {field: getattr(s3_options, field) for field in S3Access.model_fields} | {"requester_pays": True}
    S3Access(**fields).save(name)
    for variable in ("KEY", "SECRET", "ENDPOINT"):
        monkeypatch.delenv(f"DARKROOM_S3_{variable}")
    asked = request(pictures.url, f"s3://{bucket}/out", source_block=name, destination_block=name)
    state, told = run_flow(asked)
    assert state.is_completed(), state.message
    assert told[Finished][0].result.counts["good"] == 5
    assert json.dumps(last_flow_run().parameters).count(name) == 2
    monkeypatch.setenv("DARKROOM_S3_TOKEN", "of somebody else")
    options = with_blocks(asked).source_storage
    assert options is not None
    assert (options.token, options.secret, options.requester_pays) == (None, s3_options.secret, True)
    assert Access.of(with_blocks(asked)).without_secrets() == Access.of(asked)
    with pytest.raises(RequestError, match="no-such-block"):
        with_blocks(request(pictures.url, "out", source_block="no-such-block"))


@pytest.mark.parametrize("kind", ["aws-credentials", "minio-credentials", "s3-bucket"])
def test_blocks_of_prefect_aws_give_access_and_are_read_anew(
    kind: str, s3_store: Store, s3_options: StorageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that was changed in Prefect is the next run's, and nothing is deployed again."""
    aws = pytest.importorskip("prefect_aws", reason="prefect-aws is not installed: pip install prefect-aws")
    for variable in ("KEY", "SECRET", "ENDPOINT"):
        monkeypatch.delenv(f"DARKROOM_S3_{variable}", raising=False)
    key, secret = (value.get_secret_value() for value in (s3_options.key, s3_options.secret) if value)
    name = f"test-{uuid.uuid4().hex[:8]}"

    def save(secret: str) -> None:
        common = {
            "region_name": s3_options.region,
            "aws_client_parameters": aws.AwsClientParameters(endpoint_url=s3_options.endpoint),
        }
        plain = aws.AwsCredentials(aws_access_key_id=key, aws_secret_access_key=secret, **common)
        minio = aws.MinIOCredentials(minio_root_user=key, minio_root_password=secret, **common)
        bucket = aws.S3Bucket(bucket_name="any", credentials=minio)
        block = {"aws-credentials": plain, "minio-credentials": minio, "s3-bucket": bucket}[kind]
        block.save(name, overwrite=True)

    asked = request(s3_store.url, "out", source_block=f"{kind}/{name}")
    save("outdated")
    with pytest.raises(StorageError, match=r"denied|refused|secret"):
        list(list_objects(open_store(asked.source, with_blocks(asked).source_storage)))
    save(secret)
    assert list(list_objects(open_store(asked.source, with_blocks(asked).source_storage))) == []
    with pytest.raises(RequestError, match=r"gcp-credentials.*aws-credentials/NAME"):
        with_blocks(request(s3_store.url, "out", source_block="gcp-credentials/x"))


def test_a_shard_that_fails_for_good_ends_the_run_at_once(
    pictures: Store, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the shard is that of the flow, after one attempt: storage tries again object by object."""
    calls: list[int] = []

    def run(asked: DevelopRequest, plan: Plan, shard: int, *others: Any, **more: Any) -> Commit:
        calls.append(shard)
        raise StorageError("unreachable", "the store said no")

    monkeypatch.setattr(engine, "run_shard", run)
    state, told = run_flow(request(pictures.url, f"s3://{bucket}/out", shard_size=10))
    assert state.is_failed()
    assert calls == [0]
    assert isinstance(state.result(raise_on_failure=False), StorageError)
    assert Finished not in told
    (event,) = events("darkroom.run.failed", f"s3://{bucket}/out")
    assert event["payload"]["message"] == "StorageError: the store said no"


def test_many_shards_are_one_task_run(pictures: Store, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a limit no shard has a task run of its own, and the tables are what they always are."""
    monkeypatch.setattr(task_runs, "MOST_TASK_RUNS", 1)
    monkeypatch.setattr(task_runs, "develop_shard", None)
    state, told = run_flow(request(pictures.url, f"s3://{bucket}/many"))
    assert state.is_completed(), state.message
    assert sorted(one.good for one in told[Advanced]) == [False] + [True] * 5
    assert artifacts(last_flow_run())["develop-progress"].data == 100.0
    pipeline_run.develop(request(pictures.url, f"s3://{bucket}/plain"))
    assert parts(open_store(f"s3://{bucket}/many")) == parts(open_store(f"s3://{bucket}/plain"))


def test_only_storage_that_may_answer_later_is_worth_a_retry() -> None:
    """States as Prefect makes them, with the exception inside."""
    run: Any = None
    for kind in ("transient", "unreachable"):
        assert worth_retrying(develop_shard, run, Failed(data=StorageError(kind, "x")))
    for error in (StorageError("denied", "x"), StorageError("invalid", "x"), ValueError("x"), MemoryError()):
        assert not worth_retrying(develop_shard, run, Failed(data=error))
    assert not worth_retrying(develop_shard, run, Completed(data={"shard": 0}))
