"""One run at a time: who holds a destination, who may take it over, and that who has lost it commits nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.destination import lease as lease_module
from pipeline.destination.layout import LEASE
from pipeline.destination.lease import hold, holder
from pipeline.errors import LeaseHeld, LeaseLost
from pipeline.requests.job import resolve
from pipeline.runs.finish import develop
from pipeline.runs.planning import plan_run
from pipeline.shards.shard import run_shard
from pipeline.storage.store import Store, exists, open_store, read, write
from tests.flows.in_process import invoke
from tests.processes import ROOT
from tests.runs import commits, fill, request

HOLDER = """
import sys, time
from pipeline.destination.lease import hold
from pipeline.storage.store import open_store
with hold(open_store(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["local", "s3"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty destination in a folder, and one in a bucket."""
    return open_store(tmp_path / "out") if request.param == "local" else request.getfixturevalue("s3_store")


def held_elsewhere(url: str) -> subprocess.Popen[str]:
    """Another process that holds the lease."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_refused_until_the_holder_is_killed(destination: Store) -> None:
    """The message names process and machine; `kill -9` frees the lease at once, and at the end it is gone."""
    with held_elsewhere(destination.url) as process:
        refused = rf"in use by a run \(process {process.pid} on .+, since 20.+\).*--take-over"
        with pytest.raises(LeaseHeld, match=refused), hold(destination):
            pass
        assert str(process.pid) in str(holder(destination))
        process.kill()
    assert holder(destination) is None
    with hold(destination):
        assert exists(destination, LEASE)
    assert not exists(destination, LEASE)


def test_a_lease_goes_also_when_a_run_fails_and_frees_no_other(tmp_path: Path) -> None:
    """Errors release it; in one process a second holder is refused, too."""
    destination = open_store(tmp_path)

    def fail() -> None:
        with hold(destination):
            with pytest.raises(LeaseHeld), hold(destination):
                pass
            assert exists(destination, LEASE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not exists(destination, LEASE)


def test_the_command_refuses_with_exit_code_2_and_takes_over_when_told(tmp_path: Path) -> None:
    """`develop` on a destination in use says whose it is; `--take-over` goes on."""
    source, out = fill(tmp_path / "source", 1), tmp_path / "out"
    with held_elsewhere(str(out)) as process:
        arguments = ["develop", source, out, "--no-prefect", "--device", "cpu"]
        refused = invoke(*arguments)
        assert refused.returncode == 2
        assert f"process {process.pid}" in refused.stderr
        assert "--take-over" in refused.stderr
        assert "Traceback" not in refused.stderr
        develop(request(source, out, take_over=True))
        process.kill()
    assert not (out / LEASE).exists()


def test_whoever_has_lost_the_lease_commits_nothing(tmp_path: Path) -> None:
    """A run that was taken over between planning and its first commit stops there; the other one ends it."""
    asked = request(fill(tmp_path / "source", 2), tmp_path / "out")
    destination = open_store(tmp_path / "out")
    with hold(destination) as first:
        plan = plan_run(resolve(asked), lease=first)
        with hold(destination, take_over=True):
            with pytest.raises(LeaseLost, match="was taken over by a run"):
                run_shard(resolve(asked), plan, 0)
            assert not commits(tmp_path / "out")
            # the loser's end leaves the winner's lease alone
            assert json.loads(read(destination, LEASE))["token"] != first.token
    assert develop(asked).counts["good"] == 2


def test_of_many_at_once_one_wins(destination: Store) -> None:
    """Twelve threads that come together: one confirms, the others are refused, or learn before they commit."""
    ready, kept = threading.Barrier(12), threading.Barrier(12)
    won: list[str] = []

    def contend() -> None:
        ready.wait()
        # everybody meets twice: when all know whether they hold it, and when all of those have asked again
        meetings = [1, 2]

        def meet() -> None:
            meetings.pop()
            kept.wait(60)

        try:
            with hold(destination) as lease:
                meet()
                lease.confirm()
                won.append(lease.token)
                meet()
        except (LeaseHeld, LeaseLost):
            while meetings:
                meet()

    threads = [threading.Thread(target=contend) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(won) == 1


def test_a_lease_from_another_machine_is_stale_when_nobody_renews_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Young, or renewed while one looks on: held, whatever clocks say. Old and still, or unreadable: taken over."""
    monkeypatch.setattr(lease_module, "BEAT_S", 1.0)
    destination = open_store(tmp_path)
    there = {"run": "r0123", "host": "far", "machine": "another", "pid": os.getpid(), "token": "x", "since": "noon"}

    def left(age: float) -> None:
        write(destination, LEASE, json.dumps(there | {"beat": lease_module.time.time() - age}).encode())

    left(5)
    with pytest.raises(LeaseHeld, match=r"run r0123 \(process \d+ on far, since noon\)"), hold(destination):
        pass
    left(1000)
    renewing = threading.Timer(0.2, left, (999,))
    renewing.start()
    with pytest.raises(LeaseHeld), hold(destination):
        pass
    renewing.join()
    for content in (json.dumps(there | {"beat": 0}).encode(), b"", b"[1]"):
        write(destination, LEASE, content)
        with hold(destination):
            pass


def test_a_held_lease_is_renewed_and_its_loss_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in it moves on, with the run's name once it is known; another token there is seen without asking."""
    monkeypatch.setattr(lease_module, "BEAT_S", 0.05)
    destination = open_store(tmp_path)
    with hold(destination) as lease:
        first = json.loads(read(destination, LEASE))
        lease.run = "r99"
        wait_until(lambda: json.loads(read(destination, LEASE))["run"] == "r99")
        assert json.loads(read(destination, LEASE))["beat"] > first["beat"]
        # written again and again: a renewal that had read the lease before the first time writes after it
        other = json.dumps(first | {"token": "another"}).encode()
        wait_until(lambda: lease.lost or write(destination, LEASE, other))
    assert json.loads(read(destination, LEASE))["token"] == "another"


def wait_until(true: object) -> None:
    """Give up after half a minute."""
    event = threading.Event()
    for _ in range(600):
        if true():  # type: ignore[operator]
            return
        event.wait(0.05)
    raise AssertionError("it never came true")
