"""The same run with Prefect's server on SQLite and on PostgreSQL: seconds, locked databases, sizes, what is recorded.

Pictures are small and shards too, so that the server has much to write down. PostgreSQL is taken from this machine
(Debian: apt-get install postgresql) and runs in a temporary folder on a loopback port, as a user who is not root.

python -m tests.benchmarks.server_databases --pictures 1000 [--shard-size 4] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from flows.command.serve import QUIET
from tests.flows.serving import free_port, wait_for
from tests.runs import command, fill

out = Console(highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--shard-size", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        # another user's PostgreSQL has to pass through
        Path(scratch).chmod(0o711)
        source = fill(Path(scratch) / "pictures", options.pictures)
        rows = []
        for name, database in {"SQLite": sqlite, "PostgreSQL": postgresql}.items():
            folder = Path(scratch) / name
            folder.mkdir(mode=0o711)
            with database(folder) as kept:
                rows.append({"database": name, **measure(kept, folder, source, options.shard_size)})
            out.print(f"[dim]{name}: {rows[-1]['seconds']} s[/]")
    show(rows, options.pictures, options.shard_size)
    if options.json:
        options.json.write_text(json.dumps(vars(options) | {"json": None, "rows": rows}, indent=2, default=str))


class Kept:
    """A database: the URL that Prefect reaches it by, and how large it is."""

    def __init__(self, url: str, size: Any) -> None:
        self.url, self.size = url, size


@contextmanager
def sqlite(folder: Path) -> Iterator[Kept]:
    path = folder / "prefect.db"
    # what is still in the journal counts, too
    yield Kept(f"sqlite+aiosqlite:///{path}", lambda: sum(one.stat().st_size for one in folder.glob("prefect.db*")))


@contextmanager
def postgresql(folder: Path) -> Iterator[Kept]:
    """A cluster of its own in the folder; ends this program where PostgreSQL is not installed."""
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    data, port = folder / "data", free_port()
    data.mkdir(mode=0o700)
    shutil.chown(data, user)

    def call(name: str, *arguments: object) -> str:
        words = [program(name), *map(str, arguments)]
        return subprocess.run(words, check=True, capture_output=True, text=True, user=user, cwd=data).stdout

    call("initdb", "--pgdata", data, "--auth", "trust", "--username", "prefect", "--no-sync")
    # left in the server's own log: what its clients do wrong
    listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}"]
    words = [program("postgres"), "-D", str(data), "-p", str(port), *listen]
    with open(folder / "postgres.log", "wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, user=user, cwd=data)
    try:
        reach = ("--host", "127.0.0.1", "--port", port, "--username", "prefect")
        ready = [program("pg_isready"), *map(str, reach[:4])]
        wait_for(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0)
        call("createdb", *reach, "prefect")
        asked = "SELECT pg_database_size('prefect')"
        url = f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
        yield Kept(url, lambda: int(call("psql", *reach, "--tuples-only", "--command", asked, "prefect")))
    finally:
        server.terminate()
        server.wait()


def program(name: str) -> str:
    """Where a program of PostgreSQL is; Debian keeps most of them off the path."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(beside[-1]) if beside else None)
    if not found:
        sys.exit(f"{name} is not here; on Debian and Ubuntu: apt-get install postgresql")
    return found


def measure(kept: Kept, folder: Path, source: Path, shard_size: int) -> dict[str, Any]:
    """Run the command against a server on this database, then wait until the server has written it all down."""
    port, log = free_port(), folder / "server.log"
    api = f"http://127.0.0.1:{port}/api"
    settings = QUIET | {"PREFECT_HOME": str(folder), "PREFECT_SERVER_DATABASE_CONNECTION_URL": kept.url}
    server = [sys.executable, "-m", "flows.command.supervisor", sys.executable, "-m", "prefect", "server", "start"]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*server, "--port", str(port)],
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=written,
            env=os.environ | settings,
        )
    try:
        wait_for(lambda: answers(api))
        empty, started = kept.size(), time.perf_counter()
        words = command("develop", source, folder / "out", "--shard-size", shard_size, "--device", "cpu")
        run = subprocess.run(words, env=os.environ | {"PREFECT_API_URL": api}, stdout=subprocess.DEVNULL, check=False)
        seconds = time.perf_counter() - started
        recorded, lag = settled(api, started + seconds)
        return {
            "exit_code": run.returncode,
            "seconds": round(seconds, 1),
            "task_runs": recorded,
            "recorded_after_s": round(lag, 1),
            "database_is_locked": log.read_text(errors="replace").count("database is locked"),
            "bytes_empty": empty,
            "bytes": kept.size(),
        }
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait()


def answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def settled(api: str, ended: float) -> tuple[int, float]:
    """How many task runs the server has recorded as ended once it records no more, and how long after the run."""
    body = {"task_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}}
    count, last = -1, ended
    while time.perf_counter() - last < 15:
        answer = httpx.post(f"{api}/task_runs/count", json=body, timeout=60)
        if answer.is_success and answer.json() != count:
            count, last = answer.json(), time.perf_counter()
        time.sleep(0.5)
    return count, last - ended


def show(rows: list[dict[str, Any]], pictures: int, shard_size: int) -> None:
    table = Table(title=f"{pictures:,} pictures in shards of {shard_size}", title_justify="left")
    table.add_column("server's database")
    for heading in ("seconds", "task runs", "recorded after s", '"database is locked"', "MB empty", "MB"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["database"] + (f" (exit code {row['exit_code']})" if row["exit_code"] else ""),
            f"{row['seconds']:.1f}",
            str(row["task_runs"]),
            f"{row['recorded_after_s']:.1f}",
            str(row["database_is_locked"]),
            f"{row['bytes_empty'] / 1e6:.1f}",
            f"{row['bytes'] / 1e6:.1f}",
        )
    out.print(table)


if __name__ == "__main__":
    main()
