"""One run at a time at a destination: whoever runs there holds `runs/lease.json` and renews it every ten seconds.

A lease whose process is gone is taken over at once on the same machine, and from another one when it has not been
renewed for a minute. `--take-over` takes any. Whoever has lost the lease commits nothing more: every commit reads it
first (`confirm`), so that two runs that came at the same moment, on a service that let both in, do not go on together.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.destination.layout import LEASE, read_or_none
from pipeline.errors import LeaseHeld, LeaseLost, StorageError
from pipeline.storage.store import Store, create, delete, write

BEAT_S, STALE_S = 10.0, 60.0
#: where creating is not exact, a lease counts when it is still there so long after it was written
SETTLED_S = 0.3
_log = logging.getLogger("darkroom.lease")
#: tokens of leases that this process holds
_held: set[str] = set()


@dataclass
class Lease:
    """A held lease. `run` may be set once it is known; `lost` becomes true when another run has taken it."""

    destination: Store
    token: str
    since: str
    run: str = ""
    lost: bool = False
    #: where it lies below the destination
    path: str = LEASE
    #: when it counts, by the monotonic clock
    settled: float = field(default_factory=lambda: time.monotonic() + SETTLED_S)

    def confirm(self) -> None:
        """Raise LeaseLost unless the lease is still ours, a moment after it was taken where creating is not exact."""
        time.sleep(max(0.0, self.settled - time.monotonic()))
        confirm(self.destination, self.token, self.path)


@contextmanager
def hold(destination: Store, take_over: bool = False, path: str = LEASE) -> Iterator[Lease]:
    """Hold the destination's lease, or another one at a path there, while inside; at the end it is deleted.

    Raises LeaseHeld when another run has it, StorageError.
    """
    lease = _take(destination, take_over, path)
    _held.add(lease.token)
    ended, writing = threading.Event(), threading.Lock()
    beat = threading.Thread(target=_renew, args=(lease, ended, writing), name="lease", daemon=True)
    beat.start()
    try:
        yield lease
    finally:
        ended.set()
        # a renewal under way would bring back what is deleted here
        waited = writing.acquire(timeout=BEAT_S)
        _held.discard(lease.token)
        with suppress(StorageError):
            if (_read(destination, path) or {}).get("token") == lease.token:
                delete(destination, path)
        if waited:
            writing.release()


def confirm(destination: Store, token: str, path: str = LEASE) -> None:
    """Raise LeaseLost unless the lease at the destination has this token; the token "" is always in order."""
    if not token:
        return
    there = _read(destination, path)
    if there is None:
        raise LeaseLost(f"the lease {destination.url_of(path)} is gone; start again to go on")
    if there.get("token") != token:
        raise LeaseLost(f"{destination.url} was taken over by {_holder(there)}; nothing more is committed here")


def holder(destination: Store) -> str | None:
    """Return who is at work at the destination, for people; None when nobody is, or a process that is gone."""
    there = _read(destination, LEASE)
    return _holder(there) if there is not None and _alive(there, destination, LEASE) else None


def _take(destination: Store, take_over: bool, path: str) -> Lease:
    lease = Lease(destination, secrets.token_hex(8), datetime.now(UTC).isoformat(timespec="seconds"), path=path)
    for _ in range(3):
        there = _read(destination, path)
        if there is None:
            if create(destination, path, _content(lease)):
                if destination.is_local:
                    lease.settled = time.monotonic()
                return lease
            # a try whose answer was lost may have created it
            if (_read(destination, path) or {}).get("token") == lease.token:
                return lease
            continue
        if not take_over and _alive(there, destination, path):
            raise LeaseHeld(
                f"{destination.url} is in use by {_holder(there)}; wait for it, use another destination, "
                "or --take-over if it is no longer at work"
            )
        _log.warning("%s: taking over from %s", destination.url, _holder(there))
        write(destination, path, _content(lease))
        lease.settled = time.monotonic() + SETTLED_S
        return lease
    raise LeaseHeld(f"{destination.url} is being taken by others at this moment; start again")


def _renew(lease: Lease, ended: threading.Event, writing: threading.Lock) -> None:
    while not ended.wait(BEAT_S):
        with writing:
            if ended.is_set():
                return
            try:
                confirm(lease.destination, lease.token, lease.path)
                write(lease.destination, lease.path, _content(lease))
            except LeaseLost as error:
                lease.lost = True
                _log.error("%s", error)
                return
            except StorageError as error:
                # commits read the lease themselves, and fail with the store
                _log.warning("the lease could not be renewed: %s", error)


def _read(destination: Store, path: str) -> dict[str, Any] | None:
    """Read a lease: an empty dictionary when it cannot be parsed, None when there is none."""
    data = read_or_none(destination, path)
    if data is None:
        return None
    try:
        content = json.loads(data)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _content(lease: Lease) -> bytes:
    content = {
        "run": lease.run,
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "token": lease.token,
        "since": lease.since,
        "beat": time.time(),
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _alive(there: dict[str, Any], destination: Store, path: str) -> bool:
    """Tell whether the holder of a lease may still be at work."""
    pid = there.get("pid")
    if isinstance(pid, int) and there.get("machine") == _machine():
        if pid == os.getpid():
            return there.get("token") in _held
        return _started(pid) == there.get("started") is not None
    beat = there.get("beat")
    if isinstance(beat, (int, float)) and abs(time.time() - beat) < STALE_S:
        return True
    # clocks may differ: a lease that is renewed while we look on is held, whatever its time says
    deadline = time.monotonic() + 1.5 * BEAT_S
    while time.monotonic() < deadline:
        time.sleep(BEAT_S / 10)
        now = _read(destination, path)
        if now is None:
            return False
        if now != there:
            return True
    return False


def _holder(there: dict[str, Any]) -> str:
    run = f"run {there['run']}" if there.get("run") else "a run"
    process = f"process {there.get('pid', '?')} on {there.get('host', 'an unknown machine')}"
    return f"{run} ({process}, since {there.get('since', 'an unknown time')})"


def _machine() -> str:
    """Return a name that all processes share which see each other by their numbers: this boot, this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """Return when a process began, as its system gives it; None for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # Z and X have ended, and only wait to be noticed
        return None if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError):
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "unknown"
