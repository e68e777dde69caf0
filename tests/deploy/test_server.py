"""`deploy/` on a real server: what it sets up, and a run of every deployment that a process worker can make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.deployments import OFFERS
from tests.autoencoder_models import random_autoencoder
from tests.flows.serving import Served, free_port, serving, wait_for
from tests.frame_files import animation, moving
from tests.processes import ROOT
from tests.runs import QUICK, fill, table
from tests.small_sets import write_mnist

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

TRAINING = {"steps": 2, "batch": 2, "validate_every": 2, "device": "cpu", "precision": "float32"}
SPACE = {"sizes": {"form": "dense", "shape": [1, 28, 28], "widths": {"choices": [[16, 4], [32, 8]]}}}


def shell(served: Served, *words: object, **environment: str) -> str:
    """What a command of an operator prints; it must succeed."""
    settings = {
        "PREFECT_API_URL": served.api,
        "COLUMNS": "200",
        "DARKROOM_IMAGE": "a:cpu",
        "DARKROOM_CUDA_IMAGE": "a:cuda",
    }
    done = subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | settings | environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def set_up(served: Served, folder: Path = ROOT / "deploy", **changes: str) -> str:
    access = {"DARKROOM_S3_ENDPOINT": "http://127.0.0.1:9", "DARKROOM_S3_KEY": "one", "DARKROOM_S3_SECRET": "two"}
    return shell(served, sys.executable, folder / "setup_server.py", **access | changes)


def deploy(served: Served) -> None:
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    shell(served, *prefect, "deploy", "--all", "--prefect-file", "deploy/prefect.yaml")


def test_set_up_deployed_and_run(tmp_path: Path) -> None:
    with serving(tmp_path / "home", tmp_path, free_port(), "--work-pool", "local-process") as served:
        first, second = set_up(served), set_up(served, DARKROOM_S3_KEY="new")
        assert "work pool docker: made" in first
        assert "work pool docker: renewed" in second
        assert "automation darkroom-silent-runs: made" in first
        assert "automation darkroom-silent-runs: renewed" in second
        pools = {pool["name"]: pool for pool in served.call("POST", "work_pools/filter", limit=20)}
        assert "gpus" in pools["kubernetes"]["base_job_template"]["variables"]["properties"]
        block = served.call("GET", "block_types/slug/darkroom-s3/block_documents/name/archive?include_secrets=true")
        assert block["data"]["key"] == "new"
        deploy(served)
        made = {one["name"]: one for one in served.call("POST", "deployments/filter", limit=50)}
        gpu = served.call("GET", "deployments/name/train/on-gpu")
        assert gpu["job_variables"]["gpus"] == 1
        assert gpu["job_variables"]["image"] == "a:cuda"
        assert {"on-demand", "nightly", "every-quarter-hour", "on-upload", "in-container", "on-cluster"} <= set(made)
        runs = {name: served.start(name, request=request) for name, request in small_requests(tmp_path).items()}
        assert {name.partition("/")[0] for name in runs} == set(OFFERS)
        states = {name: served.finish(run) for name, run in runs.items()}
        assert {name: state["type"] for name, state in states.items()} == dict.fromkeys(runs, "COMPLETED"), states
        assert_an_event_develops(served, tmp_path)


def test_a_run_that_falls_silent_is_shown_as_crashed(tmp_path: Path) -> None:
    """`kill -9` of a worker and its run, so that only the automation can tell; one that ended well is left alone."""
    fill(tmp_path / "photos", 2)
    fill(tmp_path / "many", 60, height=300, width=400)
    within = 90
    short = {"source": str(tmp_path / "photos"), "destination": str(tmp_path / "a"), "recipe": QUICK, "device": "cpu"}
    long = {"source": str(tmp_path / "many"), "destination": str(tmp_path / "b"), "recipe": "codecs", "device": "cpu"}
    with serving(tmp_path / "home", tmp_path, free_port()) as served:
        set_up(served, hasty_copy(tmp_path / "deploy", within))
        deploy(served)
        with working(served, "local-process", tmp_path / "worker.txt") as worker:
            ended = served.start("develop/on-demand", request=short)
            assert served.finish(ended)["type"] == "COMPLETED"
            run = served.start("develop/on-demand", request=long | {"shard_size": 5})
            wait_for(lambda: list(tmp_path.glob("b/runs/*/shards/*.json")))
            # the worker first, which would say of its run that it has crashed
            for process in (worker, *worker.children(recursive=True)):
                process.kill()
        silent = time.monotonic()
        assert served.state(run)["type"] == "RUNNING"
        state = served.finish(run)
        assert (state["type"], state["message"]) == ("CRASHED", "No heartbeat for 9 minutes; start the run again")
        # the last heartbeat may have come 30 seconds before the end
        assert within - 35 < time.monotonic() - silent < 2 * within
        assert served.state(ended)["type"] == "COMPLETED"


def hasty_copy(folder: Path, within: int) -> Path:
    """`deploy/` in another place, with an automation that waits no more than so many seconds."""
    copy = Path(shutil.copytree(ROOT / "deploy", folder))
    text = (copy / "server.yaml").read_text()
    assert text.count("within: 540") == 1
    (copy / "server.yaml").write_text(text.replace("within: 540", f"within: {within}"))
    return copy


@contextmanager
def working(served: Served, pool: str, log: Path) -> Iterator[psutil.Process]:
    """A worker as an operator starts it, whose runs send a heartbeat as often as Prefect lets them."""
    settings = {"PREFECT_API_URL": served.api, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    words = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
    with log.open("w") as out, subprocess.Popen(words, stdout=out, stderr=out, env=os.environ | settings) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def small_requests(folder: Path) -> dict[str, dict[str, Any]]:
    """A small request for every deployment of a process pool, with all that it needs there already."""
    photos = str(fill(folder / "photos", 4, height=64, width=64))
    films = folder / "films"
    films.mkdir()
    (films / "walk.gif").write_bytes(animation(moving(3), "GIF"))
    for name, recipe in (("streams", {"branches": {"learned": [{"step": "autoencode"}]}}), ("frames", QUICK)):
        from pipeline.requests.pictures import DevelopRequest
        from pipeline.runs.finish import develop

        source = photos if name == "streams" else str(films)
        develop(DevelopRequest(source=source, destination=str(folder / name), recipe=recipe, device="cpu"))

    def ends(source: object, destination: str, **more: Any) -> dict[str, Any]:
        return {"source": str(source), "destination": str(folder / destination), **more}

    return {
        "develop/on-demand": ends(photos, "a", recipe=QUICK, device="cpu"),
        "develop/nightly": ends(photos, "b", recipe=QUICK, device="cpu"),
        "develop/every-quarter-hour": ends(photos, "c", recipe=QUICK, device="cpu"),
        "develop/on-upload": ends(photos, "d", recipe=QUICK, device="cpu"),
        "compress/on-demand": ends(photos, "e", device="cpu"),
        "decompress/on-demand": ends(folder / "streams/streams", "f", device="cpu"),
        "assemble/on-demand": ends(folder / "frames", "g"),
        "evaluate/on-demand": ends(photos, "h", codecs=["jpeg"], anchor="jpeg", points=3, device="cpu"),
        "explore/on-demand": ends(photos, "i", umap=False, device="cpu"),
        "generate/on-demand": {
            "model": random_autoencoder(folder, "variational"),
            "destination": str(folder / "j"),
            "samples": 2,
            "device": "cpu",
        },
        "verify/on-demand": {"destination": str(folder / "frames")},
        "gc/on-demand": {"destination": str(folder / "frames"), "dry_run": True},
        "train/on-demand": {
            "task": "denoise",
            "source": [photos],
            "model": str(folder / "k/tiny"),
            "crop": 32,
            **TRAINING,
        },
        "sweep/on-demand": {
            "task": "autoencoder",
            "source": [str(write_mnist(folder / "digits"))],
            "destination": str(folder / "l"),
            "space": SPACE,
            "trials": 1,
            **TRAINING,
        },
    }


def assert_an_event_develops(served: Served, folder: Path) -> None:
    """An event with a source and a destination starts a run with them as its parameters."""
    event = {
        "occurred": "2026-01-01T00:00:00+00:00",
        "event": "darkroom.upload.completed",
        "resource": {"prefect.resource.id": "darkroom.upload.test"},
        "payload": {"source": str(folder / "photos"), "destination": str(folder / "by-event")},
        "id": "00000000-0000-4000-8000-000000000001",
    }
    from datetime import UTC, datetime

    event["occurred"] = datetime.now(UTC).isoformat()
    httpx.post(f"{served.api}/events", json=[event], timeout=30).raise_for_status()
    wait_for(lambda: list(folder.glob("by-event/runs/*/_SUCCESS")))
    assert len(table(folder / "by-event", "manifest")) == 4
