"""`darkroom serve` as a real process, for the tests that need a server and a worker."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil

from tests.runs import command

PATIENCE = 240


@dataclass
class Served:
    """A running `darkroom serve` and the URL of its API."""

    process: subprocess.Popen[str]
    api: str
    log: Path

    def call(self, method: str, path: str, **body: Any) -> Any:
        """What the server answers; asked again, as Prefect's own client does, while its SQLite database is locked."""
        until = time.monotonic() + PATIENCE
        while (answer := httpx.request(method, f"{self.api}/{path}", json=body or None, timeout=30)).status_code == 503:
            assert time.monotonic() < until
            time.sleep(0.5)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def start(self, deployment: str, **parameters: Any) -> UUID:
        """Start a run of a deployment; gives the id of the flow run."""
        found = self.call("GET", f"deployments/name/{deployment}")
        run = self.call("POST", f"deployments/{found['id']}/create_flow_run", parameters=parameters)
        return UUID(run["id"])

    def state(self, run: UUID) -> dict[str, Any]:
        return self.call("GET", f"flow_runs/{run}")["state"]

    def finish(self, run: UUID) -> dict[str, Any]:
        """The final state of a flow run, waited for."""
        wait_for(lambda: self.state(run)["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"))
        return self.state(run)

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def wait_for(what: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """The first true value of `what()`."""
    until = time.monotonic() + patience
    while not (value := what()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(home: Path, folder: Path, port: int, *options: object) -> Iterator[Served]:
    """Serve from `folder` with a database in `home`; killed at the end, where it has not ended before."""
    log = home / "serve.txt"
    home.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    with log.open("w") as out:
        process = subprocess.Popen(
            command("serve", "--port", port, *options),
            stdout=out,
            stderr=out,
            text=True,
            cwd=folder,
            env=environment | {"PREFECT_HOME": str(home), "COLUMNS": "300"},
        )
    try:
        wait_for(lambda: "Ctrl-C stops it all" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield Served(process, f"http://127.0.0.1:{port}/api", log)
    finally:
        process.kill()
        process.wait()
