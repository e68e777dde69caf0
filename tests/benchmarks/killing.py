"""One run to S3, killed with SIGKILL at random moments and resumed, against an undisturbed one.

Killed are the process of a plain run, a Dask worker or the process that gives it work, and the S3 server, which is
started again on the same disk. At the end the tables are compared row for row (timings apart), every object that a
commit names with its size and checksum, and what `darkroom gc` and `darkroom verify` say. All of it is made below a
temporary folder, on loopback.

python -m tests.benchmarks.killing [--pictures 300] [--times 50] [--seed 0] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import secrets
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from pipeline.errors import StorageError
from pipeline.storage.store import filesystem, list_objects, open_store, read, write
from tests.processes import workers_of
from tests.runs import command, picture_file, stored
from tests.s3_server import environment_of, s3_server

RECIPE = {"branches": {"noisy": [{"step": "gaussian_noise", "seed": 1}]}, "output": {"format": "png"}}
PICTURES_A_SHARD = 3
#: which is killed next, by what is running
WAYS = {"plain": {"process": 5, "server": 2}, "dask": {"worker": 5, "process": 2, "server": 1}}
_PATIENCE = 300.0


@dataclass
class Service:
    """The S3 server, which can be killed and started again with the same data, port and secret."""

    root: Path
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = 0
    running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start(self) -> None:
        server = self.running.enter_context(s3_server(self.root, self.port, self.secret))
        self.port = int(server.endpoint.rpartition(":")[2])
        os.environ |= environment_of(server)

    def kill(self) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{self.root}/".encode() in (folder / "cmdline").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
        self.running.close()


@dataclass
class Victim:
    """The run: at most one process at a time, and what was done to it."""

    arguments: list[object]
    environment: dict[str, str]
    process: subprocess.Popen[str] | None = None
    engine: str = ""
    lives: int = 0
    ends: Counter[str] = field(default_factory=Counter)

    def live(self, engine: str) -> None:
        """Start the command, where it is not running."""
        if self.process and self.process.poll() is not None:
            self.ends[f"ended with {self.process.returncode}"] += 1
            self.process = None
        if not self.process:
            self.engine = engine
            self.lives += 1
            more = ["--engine", "dask", "--workers", 2] if engine == "dask" else ["--no-prefect"]
            self.process = subprocess.Popen(
                command(*self.arguments, *more),
                env=os.environ | self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
            )

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def main() -> None:
    """Print what was killed and what came of it; exits with 1 where anything is lost, twice or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Prefect reads its settings when it is imported
    os.environ |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    from prefect.testing.utilities import prefect_test_harness

    with tempfile.TemporaryDirectory(prefix="darkroom-killing-") as folder, prefect_test_harness(300):
        found = _measure(Path(folder), options.pictures, options.times, random.Random(options.seed))
    table = Table(title=f"{options.pictures} pictures, killed {found['kills']} times", title_justify="left")
    table.add_column("what")
    table.add_column("found", justify="right")
    for name, value in found.items():
        table.add_row(name.replace("_", " "), json.dumps(value) if isinstance(value, (dict, list)) else str(value))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    raise SystemExit(0 if found["as_undisturbed"] and not found["wrong_objects"] and not found["left_over"] else 1)


def _measure(folder: Path, pictures: int, times: int, chance: random.Random) -> dict[str, Any]:
    from prefect.settings import PREFECT_API_URL

    service = Service(folder / "s3")
    service.start()
    try:
        bucket, recipe = open_store("s3://killing"), folder / "recipe.yaml"
        filesystem(bucket).call_s3("create_bucket", Bucket="killing")
        recipe.write_text(yaml.safe_dump(RECIPE))
        for number in range(pictures):
            write(bucket, f"source/{number:06d}.png", picture_file(number))
        settings = ["--recipe", recipe, "--shard-size", PICTURES_A_SHARD, "--device", "cpu"]
        whole = ["develop", "s3://killing/source", "s3://killing/whole", *settings, "--no-prefect"]
        subprocess.run(command(*whole), check=True, stdout=subprocess.DEVNULL, timeout=1800)
        victim = Victim(
            ["develop", "s3://killing/source", "s3://killing/out", *settings],
            {"PREFECT_API_URL": str(PREFECT_API_URL.value())},
        )
        started = time.monotonic()
        killed = _kill(victim, service, times, -(-pictures // PICTURES_A_SHARD), chance)
        committed = _commits()
        victim.live("plain")
        assert victim.process
        code = victim.process.wait(1800)
        return {
            "kills": sum(killed.values()),
            "killed": dict(killed),
            "ends_of_its_own": dict(victim.ends),
            "shards_before_the_last_life": committed,
            "last_exit_code": code,
            "minutes": round((time.monotonic() - started) / 60, 1),
            "as_undisturbed": stored("s3://killing/out") == stored("s3://killing/whole"),
            "wrong_objects": _wrong_objects(),
            "gc_and_verify": (codes := _tidy()),
            "left_over": _left_over() if codes["gc"] == 0 else [],
        }
    finally:
        service.kill()


def _kill(victim: Victim, service: Service, times: int, shards: int, chance: random.Random) -> Counter[str]:
    """Kill so many times while the run goes on, spread over its shards."""
    killed: Counter[str] = Counter()
    while sum(killed.values()) < times:
        left = shards - _commits()
        if left <= 0:
            break
        victim.live("dask" if victim.lives % 3 == 1 else "plain")
        ways = WAYS[victim.engine]
        (way,) = chance.choices(list(ways), list(ways.values()))
        share = left / (times - sum(killed.values()) + 1)
        # at times before anything is done, else after as much as leaves some for the other times
        until = shards - left + chance.choice([0, 1, round(share), round(2 * share)])
        _wait_for(victim, until, chance.uniform(0, 0.4 if until > shards - left else 6))
        if not victim.process or victim.process.poll() is not None:
            continue
        if way == "server":
            service.kill()
            service.start()
        elif way == "worker":
            found = workers_of(victim.process.pid)
            if not found:
                continue
            os.kill(chance.choice(found), signal.SIGKILL)
        else:
            victim.kill()
        killed[f"{victim.engine} {way}"] += 1
    victim.kill()
    return killed


def _wait_for(victim: Victim, commits: int, pause: float) -> None:
    """Wait for so many commits in all and a moment more, or for the end of the process."""
    deadline = time.monotonic() + _PATIENCE
    while victim.process and victim.process.poll() is None and _commits() < commits and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(pause)


def _commits() -> int:
    return sum(1 for _ in _documents())


def _documents() -> Iterator[str]:
    try:
        yield from (entry.key for entry in list_objects(open_store("s3://killing/out"), ["runs/*/shards/*.json"]))
    except StorageError as error:
        if error.kind != "missing":
            raise


def _wrong_objects() -> list[str]:
    """Objects that are not what their commits say."""
    store, wrong = open_store("s3://killing/out"), []
    for document in _documents():
        for entry in json.loads(read(store, document))["outputs"]:
            data = read(store, entry["path"])
            if (len(data), hashlib.sha256(data).hexdigest()) != (entry["size"], entry["sha256"]):
                wrong.append(entry["path"])
    return wrong


def _tidy() -> dict[str, int | str]:
    """Exit codes of gc and verify, where this version has them."""
    codes: dict[str, int | str] = {}
    for name in ("gc", "verify"):
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        known = subprocess.run(command(name, "--help"), **quiet).returncode == 0
        codes[name] = (
            subprocess.run(command(name, "s3://killing/out"), **quiet).returncode if known else "no such command"
        )
    return codes


def _left_over() -> list[str]:
    """Objects that an undisturbed run does not leave, or leaves and are not there; plans are in folders of any name."""
    names = []
    for run in ("out", "whole"):
        keys = (entry.key for entry in list_objects(open_store(f"s3://killing/{run}")))
        names.append(Counter(re.sub(r"/planning-[0-9a-f]+/", "/planning/", key) for key in keys))
    return sorted([*(names[0] - names[1]).elements(), *(names[1] - names[0]).elements()])


if __name__ == "__main__":
    main()
