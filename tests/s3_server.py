"""A real S3 service for tests: one-node OpenStack Swift with its S3 interface, on loopback.

From a shell:  python tests/s3_server.py FOLDER [--port N]   (runs until SIGINT or SIGTERM; data stay in FOLDER)

Swift lives in a virtual environment of its own, `.venv-s3` in the repository, made on first use. Any user with
an entry in the password file can run it; FOLDER needs a file system with user extended attributes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

VERSION = "2.38.3"
ENVIRONMENT = Path(__file__).resolve().parent.parent / ".venv-s3"
REGION = "us-east-1"
START_TIMEOUT = 60.0
_PR_SET_PDEATHSIG = 1

_FILTERS = (
    "catch_errors gatekeeper healthcheck memory listing_formats bulk s3api tempauth "
    "copy slo dlo versioned_writes symlink"
)
# Stands for memcached, which would be one more service: without either, the proxy asks the servers of accounts and
# containers anew at every request, which takes half of the time of all.
_MEMORY = """
from time import monotonic

class Memory:
    def __init__(self):
        self.held = {}

    def get(self, key, **options):
        value, until = self.held.get(key, (None, 0))
        return value if monotonic() < until else None

    def set(self, key, value, time=0, **options):
        self.held[key] = value, monotonic() + (time or float("inf"))

    def delete(self, key, *others, **options):
        self.held.pop(key, None)

def filter_factory(settings, **more):
    memory = Memory()
    return lambda server: lambda environment, start: server(environment | {"swift.cache": memory}, start)
"""
_SETTINGS = {
    "s3api": f"s3_acl = false\nlocation = {REGION}\ndns_compliant_bucket_names = yes\n",
    "versioned_writes": "allow_object_versioning = true\n",
}

# One process for the three rings: a start of Python each would take longer than the servers themselves.
_BUILD_RINGS = """
import sys
from swift.common.ring import RingBuilder
for argument in sys.argv[2:]:
    kind, port = argument.split("=")
    builder = RingBuilder(4, 1, 1)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1", "port": int(port),
                     "replication_ip": "127.0.0.1", "replication_port": int(port), "device": "disk", "meta": ""})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""


@dataclass(frozen=True)
class S3Server:
    """How to reach the running service."""

    endpoint: str
    key: str
    secret: str = field(repr=False)
    region: str = REGION


def swift_environment() -> Path:
    """Return the `bin` folder of the environment that holds Swift, made first if need be.

    May be called by several processes at once. Raises `RuntimeError` when Swift cannot be installed.
    """
    ENVIRONMENT.mkdir(exist_ok=True)
    marker = ENVIRONMENT / "installed"
    with open(ENVIRONMENT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists() or marker.read_text() != VERSION:
            _run(sys.executable, "-m", "venv", str(ENVIRONMENT))
            _run(str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", f"swift=={VERSION}")
            marker.write_text(VERSION)
    return ENVIRONMENT / "bin"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def s3_server(root: str | Path, port: int = 0, secret: str = "") -> Iterator[S3Server]:
    """Run the service with its data below `root` and yield how to reach it; the servers end with the block.

    `port` 0 lets the system choose, and no `secret` makes one. The same `root` can be served again later, by one
    server at a time. Should this process be killed, the servers go with it (Linux). Raises `RuntimeError` when they
    do not start.
    """
    programs = swift_environment()
    folder = Path(root).resolve()
    (folder / "node" / "disk").mkdir(parents=True, exist_ok=True)
    _check_attributes(folder)
    proxy, *others = _free_ports(4)
    ports = dict(zip(("account", "container", "object"), others, strict=True))
    server = S3Server(f"http://127.0.0.1:{port or proxy}", "test:tester", secret or secrets.token_hex(16))
    _configure(folder, port or proxy, ports, server.secret)
    rings = [f"{kind}={number}" for kind, number in ports.items()]
    _run(str(programs / "python"), "-c", _BUILD_RINGS, str(folder), *rings)
    with contextlib.ExitStack() as running:
        processes = [running.enter_context(_program(programs, folder, kind)) for kind in (*ports, "proxy")]
        _wait(server, processes, folder)
        yield server


def _check_attributes(folder: Path) -> None:
    try:
        os.setxattr(folder, "user.swift", b"test")
    except OSError as error:
        raise RuntimeError(f"{folder}: Swift needs a file system with user extended attributes ({error})") from None


def _free_ports(count: int) -> list[int]:
    """Return ports below those of outgoing connections, one of which could take a port before its server does."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = 10_000 + secrets.randbelow(20_000)
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
        return ports


def _configure(folder: Path, port: int, ports: dict[str, int], secret: str) -> None:
    user = pwd.getpwuid(os.getuid()).pw_name
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = darkroom\nswift_hash_path_suffix = darkroom\n"
        "[storage-policy:0]\nname = default\ndefault = yes\n"
    )

    def common(name: str, number: int) -> str:
        return (
            f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {number}\nworkers = 0\nuser = {user}\nswift_dir = {folder}\n"
            f"devices = {folder}/node\nmount_check = false\nlog_name = {name}\nlog_address = /nonexistent\n"
        )

    for kind, number in ports.items():
        pipeline = f"[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        (folder / f"{kind}-server.conf").write_text(common(kind, number) + pipeline)
    settings = {**_SETTINGS, "tempauth": f"user_test_tester = {secret} .admin\n"}
    (folder / "memory.py").write_text(_MEMORY)
    kinds = dict.fromkeys(_FILTERS.split(), "use = egg:swift#{}") | {
        "memory": "paste.filter_factory = memory:filter_factory"
    }
    filters = [f"[filter:{name}]\n{kind.format(name)}\n{settings.get(name, '')}" for name, kind in kinds.items()]
    application = (
        f"[pipeline:main]\npipeline = {_FILTERS} proxy-server\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\nallow_account_management = true\n"
    )
    path = folder / "proxy-server.conf"
    path.touch(mode=0o600)
    path.write_text(common("proxy", port) + application + "".join(filters))


@contextlib.contextmanager
def _program(programs: Path, folder: Path, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(programs / "python"), str(programs / f"swift-{kind}-server"), f"{folder}/{kind}-server.conf"]
    with open(folder / f"{kind}.log", "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,
            env=os.environ | {"PYTHONPATH": str(folder)},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(server: S3Server, processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.endpoint}/healthcheck", timeout=1):
            return
        time.sleep(0.1)
    logs = "".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(folder.glob("*.log")))
    raise RuntimeError(f"Swift did not start within {START_TIMEOUT:.0f} s:\n{logs}")


def main() -> None:
    """Serve until told to stop; print the variables that point Darkroom and the AWS tools here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="FOLDER")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), s3_server(arguments.root, arguments.port) as server:
        print(f"READY {server.endpoint}")
        for name, value in environment_of(server).items():
            print(f"export {name}={value}")
        sys.stdout.flush()
        signal.pause()


def environment_of(server: S3Server) -> dict[str, str]:
    """Return the environment variables that make Darkroom use this service and no other."""
    return {
        "DARKROOM_S3_ENDPOINT": server.endpoint,
        "DARKROOM_S3_KEY": server.key,
        "DARKROOM_S3_SECRET": server.secret,
        "DARKROOM_S3_REGION": server.region,
        "DARKROOM_S3_PATH_STYLE": "true",
    }


if __name__ == "__main__":
    main()
