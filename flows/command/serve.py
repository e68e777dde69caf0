"""`darkroom serve`: a Prefect server, every flow as a deployment, and a worker, on this machine, in one command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import httpx
from rich.markup import escape

from darkroom.rooms import own_process
from flows.command.console import facts, out
from flows.command.show.prefect import through
from flows.orchestration.api import Way, check_home, configured_api, prefect_home, recorded, spare_loopback
from models.errors import DarkroomError
from pipeline.errors import RequestError

if TYPE_CHECKING:
    from prefect import State
    from prefect.client.orchestration import SyncPrefectClient

#: seconds a server has to answer for the first time; it makes its database then
_PATIENCE = 180.0
#: telemetry and advertisements of Prefect, off for all that is started here
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
}
#: folders that hide Darkroom's own from Python when a run starts beside them
_ROOMS = ("flows", "pipeline", "models")


class ServeError(DarkroomError):
    """A server or worker that did not start, or ended by itself; the message says where its log is."""


@dataclass(frozen=True)
class Part:
    """A process that was started: its guard, and where it writes its log."""

    name: str
    guard: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise ServeError when the process has ended."""
        if self.guard.poll() is not None:
            last = self.log.read_text(errors="replace").strip().splitlines()[-3:]
            raise ServeError("\n".join([f"the {self.name} ended; its log is {self.log}", *last]))


def serve(host: str, port: int, work_pool: str, runs: int) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit code.

    With PREFECT_API_URL set, that server is used and none started. Raises RequestError when the port is taken, the
    address is no address or the folder will not do, ApiError when the server that is set does not answer or Prefect's
    folder cannot be written to, and ServeError when a part does not start or ends.
    """
    _check_folder(Path.cwd())
    given = configured_api()
    check_home()
    logs = prefect_home() / "darkroom"
    logs.mkdir(exist_ok=True)
    # the server is on this machine, whatever address it listens on
    spare_loopback(host)
    if given:
        with through(Way(True, *given)):
            pass
    api = given[1] if given else _own_api(host, port)
    with _stopped_by_signals(), ExitStack() as stack:
        parts: list[Part] = []
        if not given:
            command = ["server", "start", "--host", host, "--port", str(port)]
            # the UI looks for its server where it was found itself, whatever name or port that is
            settings = {"PREFECT_SERVER_LOGGING_LEVEL": "WARNING", "PREFECT_SERVER_UI_API_URL": "/api"}
            parts.append(stack.enter_context(_running("server", command, logs, settings)))
        with out.status(f"waiting for {api}"):
            client = stack.enter_context(_connected(api, parts))
        names = _deploy(client, work_pool)
        if not given:
            # nobody else works for a server that was started here: what is at work while no worker is, is not
            _end_abandoned(client, work_pool)
            stack.callback(_end_abandoned, client, work_pool)
        command = ["worker", "start", "--pool", work_pool, "--type", "process", "--limit", str(runs)]
        settings = {"PREFECT_API_URL": api, "PREFECT_LOGGING_LEVEL": "INFO"}
        parts.append(stack.enter_context(_running("worker", command, logs, settings)))
        stack.enter_context(recorded(api))
        _print(api, names, work_pool, logs, None if given else host)
        try:
            while True:
                for part in parts:
                    part.check()
                time.sleep(0.3)
        except KeyboardInterrupt:
            out.print("stopping; a run that is at work goes on from there when it is started again")
    return 0


def _check_folder(folder: Path) -> None:
    """Raise RequestError where a folder, in which Python looks first, would hide Darkroom's own packages from runs."""
    own = Path(__file__).parents[2]
    # a folder of weights that is called `models` hides nothing: Python prefers packages, wherever on its path
    hiding = [name for room in _ROOMS for name in (f"{room}/__init__.py", f"{room}.py") if (folder / name).exists()]
    if hiding and folder.resolve() != own.resolve():
        raise RequestError(
            f"the folder {folder} holds {hiding[0]!r}, which would hide Darkroom's own; run darkroom serve elsewhere"
        )


def _own_api(host: str, port: int) -> str:
    """Return the URL of the API of a server to be started on a host and port. Raises RequestError where none can be."""
    try:
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise RequestError(f"--host {host}: no such address; 127.0.0.1 is this machine alone") from error
    except OSError as error:
        raise RequestError(
            f"port {port} of {host} cannot be had ({error.strerror}); name another with --port, or, if a Prefect "
            f"server listens there, use it: PREFECT_API_URL=http://{host}:{port}/api darkroom serve"
        ) from error
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/api"


@contextmanager
def _running(name: str, arguments: list[str], logs: Path, settings: dict[str, str]) -> Iterator[Part]:
    """Run a part of Prefect in processes of its own, stopped at the end; see `flows.command.supervisor`."""
    path = logs / f"{name}.log"
    command = own_process("flows.command.supervisor", sys.executable, "-P", "-m", "prefect", *arguments)
    with path.open("wb") as log:
        guard = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            # a folder `flows` where this is started does not hide ours from the worker's runs
            env=os.environ | QUIET | settings | {"PYTHONSAFEPATH": "1"},
            # a Ctrl-C in the terminal reaches this process alone, which then stops the others in order
            start_new_session=True,
        )
    try:
        yield Part(name, guard, path)
    finally:
        assert guard.stdin
        guard.stdin.close()
        guard.wait()


@contextmanager
def _connected(api: str, parts: list[Part]) -> Iterator[SyncPrefectClient]:
    """Connect to the server as soon as it answers, and yield the client; raise ServeError when it does not."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        until = time.monotonic() + (_PATIENCE if parts else _PATIENCE / 10)
        while error := client.api_healthcheck():
            for part in parts:
                part.check()
            if time.monotonic() > until:
                raise ServeError(f"{api} does not answer: {error}")
            time.sleep(0.3)
        yield client


def _deploy(client: SyncPrefectClient, work_pool: str) -> list[str]:
    # flows import PyTorch and OpenCV: by now the server has started beside it
    from flows.deployments import deploy_all

    return sorted(deploy_all(client, work_pool, str(Path.cwd())))


def _end_abandoned(client: SyncPrefectClient, work_pool: str) -> None:
    """Say of runs whose worker is gone that they have crashed, which they cannot say themselves."""
    from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
    from prefect.states import Crashed

    at_work = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}})
    pool = WorkPoolFilter.model_validate({"name": {"any_": [work_pool]}})
    state: State[Any] = Crashed(message="darkroom serve was stopped; start the run again: it goes on from where it was")
    # a server that has ended cannot be told; the next start tells it
    with suppress(httpx.HTTPError):
        for run in client.read_flow_runs(flow_run_filter=at_work, work_pool_filter=pool):
            client.set_flow_run_state(run.id, state, force=True)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print(api: str, names: list[str], work_pool: str, logs: Path, host: str | None) -> None:
    ui = api.removesuffix("/api")
    table = facts()
    table.add_row("Prefect UI", escape(ui))
    table.add_row("deployments", escape(", ".join(names)))
    table.add_row("work pool", escape(f"{work_pool}, with a worker on this machine"))
    table.add_row("logs", escape(f"{logs}/server.log, {logs}/worker.log" if host else f"{logs}/worker.log"))
    out.print(table)
    out.print("[bold]start a run[/], in another shell, with a folder or a URL of yours for YOUR_PICTURES:")
    # not the demo's ./out: a destination belongs to one source
    request = """'{"source": "YOUR_PICTURES", "destination": "./developed"}'"""
    command = f"PREFECT_API_URL={api} prefect deployment run develop/on-demand --param request={request} --watch"
    out.print(f"  {escape(command)}")
    if host and not _is_loopback(host):
        out.print(
            f"[bold yellow]{escape(host)} is not this machine alone:[/] whoever reaches it can run flows and read what "
            "they can. Set PREFECT_SERVER_API_AUTH_STRING, and see docs/operating.md."
        )
    out.print("Ctrl-C stops it all")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
