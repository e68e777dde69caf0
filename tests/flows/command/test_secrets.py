"""Secrets stay where they are kept: after runs, faults and mistakes they are in nothing that was written or printed."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL

from flows.command.cli import main
from flows.orchestration.blocks import S3Access
from pipeline.storage.store import StorageOptions, Store, list_objects, open_store, read, write
from tests.fault_proxy import fault_proxy
from tests.processes import ROOT
from tests.runs import darkroom, picture_file

CANARY = "c4n4ry-in-a-coal-mine"
TRACED = """
import sys, traceback
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop
from pipeline.storage.store import StorageOptions

try:
    options = StorageOptions(endpoint_url=sys.argv[1], key="test:tester", secret=sys.argv[3], path_style=True)
    request = DevelopRequest(source=sys.argv[2], destination="memory://x", source_storage=options)
    print(request, repr(request), request.model_dump_json())
    develop(request)
except Exception:
    traceback.print_exc()
try:
    StorageOptions(secret=sys.argv[3])
except Exception:
    traceback.print_exc()
"""


def written(*folders: Path) -> list[Path]:
    """Files below folders that hold the canary."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if CANARY.encode() in path.read_bytes()]


def test_tracebacks_and_requests_do_not_show_secrets(s3_store: Store, s3_options: StorageOptions) -> None:
    """A wrong secret from Python, with everything printed that Python prints."""
    command = [sys.executable, "-X", "dev", "-c", TRACED, s3_options.endpoint, s3_store.url, CANARY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert "StorageError" in done.stderr
    assert "give both the key and the secret" in done.stderr
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize("url", [f"s3://AKIA:{CANARY}@bucket/x", f"ftp://me:{CANARY}@127.0.0.1:9/x"])
def test_secrets_in_urls_are_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    """As a source, and as a destination."""
    for pair in ((url, str(tmp_path / "out")), (str(tmp_path), url)):
        done = CliRunner().invoke(main, ["develop", *pair, "--no-prefect"])
        assert done.exit_code in (2, 3), done.output
        assert CANARY not in done.output
    assert written(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["threads", "dask"])
def test_runs_under_faults_leave_no_secret_anywhere(
    engine: str, s3_store: Store, bucket: str, s3_options: StorageOptions, prefect_server: str, tmp_path: Path
) -> None:
    """From the environment and from a block, with Prefect's most talkative logs: pages, tables, artifacts, database."""
    assert s3_options.secret is not None
    secret = s3_options.secret.get_secret_value()
    for number in range(6):
        write(s3_store, f"{number}.png", picture_file(number))
    block = f"test-{uuid.uuid4().hex[:8]}"
    home = tmp_path / "home"
    talkative = {
        "PREFECT_API_URL": prefect_server,
        "PREFECT_HOME": str(home),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
        "DASK_LOGGING__DISTRIBUTED": "debug",
    }
    said = ""
    with fault_proxy(s3_options.endpoint, seed=3) as proxy:
        proxy.deal({"503": 2, "500": 1, "reset": 1, "truncated": 1}, of=30)
        settings = {name: getattr(s3_options, name) for name in S3Access.model_fields}
        S3Access(**(settings | {"endpoint_url": proxy.url})).save(block)
        ways = {
            "environment": ([], {"DARKROOM_S3_ENDPOINT": proxy.url}),
            "block": (["--source-block", block, "--destination-block", block], {"DARKROOM_S3_SECRET": CANARY}),
        }
        for way, (options, environment) in ways.items():
            arguments = ["develop", s3_store.url, f"s3://{bucket}/{way}", "--shard-size", 2, "--device", "cpu"]
            done = darkroom(*arguments, "--engine", engine, *options, timeout=240, **(talkative | environment))
            said += done.stdout + done.stderr
            assert done.returncode == 0, done.stderr
        proxy.deal({"503": 1}, of=1)
        again = ["develop", s3_store.url, f"s3://{bucket}/never", *ways["block"][0]]
        done = darkroom(*again, timeout=240, **(talkative | ways["block"][1]))
        said += done.stdout + done.stderr
        assert done.returncode != 0
    database = Path(str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value()).partition("///")[2])
    files = list(database.parent.glob(f"{database.name}*"))
    files += [path for path in home.rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in files)
    outputs = open_store(f"s3://{bucket}")
    kept += b"".join(read(outputs, entry.key) for entry in list_objects(outputs))
    assert block.encode() in kept, "the database was read"
    for hidden in (secret, CANARY):
        assert hidden not in said
        assert hidden.encode() not in kept
    assert secret in os.environ["DARKROOM_S3_SECRET"]
