"""How a command ends: what went wrong becomes one line for people and an exit code, Ctrl-C ends it whole."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from types import FrameType

import click

from flows.command.console import manner
from models.errors import DarkroomError
from pipeline.errors import Cancelled

#: exit codes
FAILED, USAGE, STORAGE, INTERRUPTED = 1, 2, 3, 130
#: for the help of `darkroom`
EXIT_CODES = {
    "0": "done; some pictures may have failed, and are named in the closing lines and the table failures",
    "1": "the run failed: too many pictures failed, or what was checked is not well; what was good is kept",
    "2": "wrong usage: an option, a recipe, a model or a pair of places that cannot be",
    "3": "storage or Prefect refused, was not found or did not answer",
    "130": "interrupted; the same command goes on where this one ended",
}


def prepare_process() -> None:
    """Set up a process that a command has for itself: its signals, and what libraries print."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    _keep_errors_apart()


def guarded(work: Callable[[], int], in_json: bool = True) -> int:
    """Run a command and return its exit code; print what went wrong in one line, with --json as an object.

    With `in_json` False the object is not printed, for a part of a command that prints one object for all.
    """
    from rich.console import Console
    from rich.markup import escape

    complain = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        return work()
    except (KeyboardInterrupt, Cancelled):
        code, text = INTERRUPTED, "stopped; the same command goes on where this one ended"
        complain.print(text, style="yellow")
    except (DarkroomError, OSError) as error:
        code, text = error.exit_code if isinstance(error, DarkroomError) else STORAGE, _tame(str(error))
        if manner.verbose:
            complain.print(escape(_tame(traceback.format_exc(), keep="\n")), style="dim")
        complain.print(f"[bold red]error[/] {escape(text)}")
    if manner.json and in_json:
        click.echo(json.dumps({"error": text, "exit_code": code}))
    return code


def _tame(text: str, keep: str = "") -> str:
    """Replace what a terminal would obey in a text, such as escape sequences in the name of an object."""
    return "".join(letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt on Ctrl-C or SIGTERM; a moment later where a request to Prefect's server is under way.

    Raised inside one it can leave the lock of the connections held, and the next request waits for it for ever.
    """
    inside = frame
    while inside:
        if inside.f_globals.get("__name__", "").startswith("httpcore."):
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
            return
        inside = inside.f_back
    # what Prefect was about to wait for, and now never does
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    raise KeyboardInterrupt


def _keep_errors_apart() -> None:
    """Drop what C libraries print of broken pictures: rows of `failures` say it, without tearing the bars."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def leave(ended: list[int]) -> None:
    """End the process with its last code, without taking the interpreter down.

    Threads of libraries (PyArrow's that let go of what they read, a decoder that hangs, a picture in work when Ctrl-C
    came) may be inside C++ that calls Python: taken down under them the interpreter ends them there, and the process
    aborts (https://github.com/python/cpython/issues/87135).
    """
    if ended:
        logging.shutdown()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended[-1])
