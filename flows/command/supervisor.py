"""Runs a command for as long as standard input stays open: how `darkroom serve` leaves no process behind.

    python -m flows.command.supervisor COMMAND...

Whoever starts it keeps the other end of its standard input. When that closes, on purpose or because its owner was
killed, the command and all that it started are asked to end, and `GRACE` seconds later made to.
"""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
import threading

import psutil

#: seconds that a command has to end by itself
GRACE = 15.0
_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Run the command until it ends or standard input closes; return its exit code."""
    if sys.platform == "linux":
        # what a killed child leaves behind becomes a child of this process, and can be found
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_input, args=(process,), daemon=True).start()
    code = process.wait()
    _end_rest()
    return code


def _end_with_input(process: subprocess.Popen[bytes]) -> None:
    sys.stdin.buffer.read()
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()


def _end_rest() -> None:
    left = psutil.Process().children(recursive=True)
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(left, timeout=GRACE / 3)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
