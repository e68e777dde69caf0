"""All models of a plan trained in turns, each for its share of the time, by processes that can be killed at will.

A turn resumes a model's checkpoint and leaves it further on, so that how often a plan was interrupted does not show in
what it comes to: a model whose entry has `steps` ends with the weights of an undisturbed training.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from darkroom.rooms import own_process
from models.files import PLAIN
from models.training.checkpoint import cooldown_url, load_progress
from pipeline.errors import RequestError
from pipeline.requests.models import TrainPlanRequest, TrainRequest

#: seconds a turn gets to write its checkpoint once it is asked to stop
_GRACE_S = 120.0
_OWN = {"share"}


@dataclass(frozen=True)
class Entry:
    """A model of a plan: its name, the share of the time it is to have, and what trains it."""

    name: str
    share: float
    training: TrainRequest


@dataclass(frozen=True)
class Standing:
    """How far a model of a plan has come.

    `steps` and `seconds` of training in all sessions, `score` of the last validation and `before`, the one at the
    beginning of this session (lower is better). `state` is waiting, training, cooling, cooled, done or failed; `word`
    says what is wrong. `held_out` are the figures of weights written in this session.
    """

    name: str
    task: str
    share: float
    steps: int = 0
    seconds: float = 0.0
    score: float | None = None
    before: float | None = None
    state: str = "waiting"
    word: str = ""
    held_out: dict[str, float] = field(default_factory=dict)


def read_plan_file(request: TrainPlanRequest) -> list[Entry]:
    """Read the entries of a plan: `models`, a mapping of names to `task`, `share` and options of `darkroom train`.

    Raises RequestError, naming the entry, for what is no plan.
    """
    try:
        content = yaml.safe_load(Path(request.plan).read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise RequestError(f"the plan {request.plan} cannot be read: {error}") from error
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict) or not models:
        raise RequestError(f"the plan {request.plan} has no models; see docs/train.md for one that has")
    return [_entry(request, str(name), options) for name, options in models.items()]


def run_turns(request: TrainPlanRequest, tell: Callable[[list[Standing]], None]) -> list[Standing]:
    """Train in turns until all entries are done or the minutes are over; `tell` gets every change of the standings.

    The model that has had least of its share is next. In the last `cooldown` minutes what was trained is cooled down
    from its checkpoint, so that weights, cards and pages are written; the checkpoints stay to go on from. Ctrl-C stops
    every turn after its step and raises KeyboardInterrupt. Raises RequestError.
    """
    entries = {entry.name: entry for entry in read_plan_file(request)}
    board = _Board({name: _standing(entry) for name, entry in entries.items()}, tell)
    ends = time.monotonic() + 60 * request.minutes if request.minutes else float("inf")
    trains_until = ends - 60 * request.cooldown
    if trains_until <= time.monotonic():
        raise RequestError(f"--cooldown {request.cooldown:g} leaves nothing of --minutes to train; lower it")
    _in_parallel(request.at_once, lambda: _train_in_turns(request, entries, board, trains_until), board.stopped)
    if request.cooldown:
        _cool_down(request, entries, board, ends)
    return board.list()


class _Board:
    """The standings, changed by one thread at a time and told whenever they change."""

    def __init__(self, standings: dict[str, Standing], tell: Callable[[list[Standing]], None]):
        self._standings, self._tell, self._lock = standings, tell, threading.RLock()
        self.stopped = threading.Event()

    def list(self) -> list[Standing]:
        with self._lock:
            return list(self._standings.values())

    def update(self, name: str, **changes: Any) -> None:
        with self._lock:
            self._standings[name] = replace(self._standings[name], **changes)
            self._tell(self.list())

    def report(self, name: str, said: dict[str, Any]) -> None:
        """Note what a turn said of its training."""
        with self._lock:
            there = self._standings[name]
            score = there.score if said["score"] is None else said["score"]
            before = score if there.before is None else there.before
            told = {"steps": said["step"], "seconds": said["seconds"], "word": said["word"] or ""}
            self.update(name, score=score, before=before, **told)

    def take(self, states: tuple[str, ...], becomes: str) -> str | None:
        """Choose the model in one of these states that has had least of its share, and change its state.

        Returns its name, None where there is none or the turns are to stop.
        """
        with self._lock:
            free = [one for one in self._standings.values() if one.state in states and one.share > 0]
            if not free or self.stopped.is_set():
                return None
            chosen = min(free, key=lambda one: one.seconds / one.share)
            self.update(chosen.name, state=becomes)
            return chosen.name


def _train_in_turns(request: TrainPlanRequest, entries: dict[str, Entry], board: _Board, until: float) -> None:
    while time.monotonic() < until and (name := board.take(("waiting",), "training")):
        _turn(request, entries[name].training, board, name, until, 60 * request.turn)


def _cool_down(request: TrainPlanRequest, entries: dict[str, Entry], board: _Board, ends: float) -> None:
    trained = [one for one in board.list() if one.state == "waiting" and one.steps]
    rounds = -(-len(trained) // request.at_once)
    minutes = (ends - time.monotonic()) / 60 / max(1, rounds)
    for one in trained:
        board.update(one.name, state="to cool")

    def cool() -> None:
        while name := board.take(("to cool",), "cooling"):
            training = entries[name].training.model_copy(update={"cooldown": max(0.1, minutes)})
            _turn(request, training, board, name, float("inf"), None)

    _in_parallel(request.at_once, cool, board.stopped)


def _in_parallel(count: int, work: Callable[[], None], stopped: threading.Event) -> None:
    with ThreadPoolExecutor(count) as pool:
        try:
            for one in [pool.submit(work) for _ in range(count)]:
                one.result()
        except BaseException:
            # Ctrl-C above all: turns are asked to end, and the pool waits for them
            stopped.set()
            raise


def _turn(
    request: TrainPlanRequest, training: TrainRequest, board: _Board, name: str, until: float, length: float | None
) -> None:
    """Train in a process of its own for `length` seconds from its first step on, at most until a moment, or until done.

    None is no length; the moment is one of the monotonic clock.
    """
    threads = max(1, (os.cpu_count() or 1) // request.at_once)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = ["nice", "-n", str(request.nice), *own_process("pipeline.training.turn")]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment, start_new_session=True, stdin=pipe, stdout=pipe, text=True)
    _stand_back(process.pid, request.nice)
    assert process.stdin is not None
    assert process.stdout is not None
    ending = _Ending(process, board.stopped, until)
    said: dict[str, Any] = {}
    with suppress(BrokenPipeError):
        process.stdin.write(training.model_dump_json(exclude_none=True) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            said |= _parsed(line)
            if "step" in said:
                ending.at_latest(time.monotonic() + length if length else until)
                board.report(name, said)
    code = process.wait()
    if "figures" in said:
        board.update(name, state="cooled" if training.cooldown else "done", held_out=said["figures"])
    elif ending.killed and "step" in said:
        word = f"did not end within {_GRACE_S:g} s of being asked and was killed; it goes on from its checkpoint"
        board.update(name, state="waiting", word=word)
    elif "error" in said or code:
        word = said.get("error", f"its process ended with exit code {code}; the same command goes on")
        board.update(name, state="failed", word=word)
    else:
        board.update(name, state="waiting")


def _stand_back(process: int, nice: int) -> None:
    """Let the session that a process leads stand back as far as the process itself does.

    Where Linux shares the processor between sessions first (sched(7), autogroup), a nice value counts within one alone.
    """
    with suppress(OSError):
        Path(f"/proc/{process}/autogroup").write_text(str(nice))


class _Ending:
    """What asks a turn to end after its step once its time is over, and kills it where it does not."""

    def __init__(self, process: subprocess.Popen[str], stopped: threading.Event, until: float):
        self._process, self._stopped, self._until, self._told = process, stopped, until, False
        self.killed = False
        threading.Thread(target=self._watch, daemon=True).start()

    def at_latest(self, moment: float) -> None:
        """Let the turn end at a moment of the monotonic clock, if no earlier one was told before."""
        if not self._told:
            self._told = True
            self._until = min(self._until, moment)

    def _watch(self) -> None:
        while time.monotonic() < self._until and not self._stopped.wait(0.2):
            if self._process.poll() is not None:
                return
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write("stop\n")
            self._process.stdin.flush()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.killed = True
            self._process.kill()


def _parsed(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _entry(request: TrainPlanRequest, name: str, options: Any) -> Entry:
    where = f"{request.plan}: model {name!r}"
    if not isinstance(options, dict):
        raise RequestError(f"{where} is no mapping of options; give it a task")
    share = options.get("share", 1)
    if not isinstance(share, int | float) or isinstance(share, bool) or share < 0:
        raise RequestError(f"{where}: its share {share!r} is no number of 0 or more")
    fixed = {"source", "model", "cooldown", "cooldown_steps", "log"} & options.keys()
    if fixed:
        raise RequestError(f"{where}: {', '.join(sorted(fixed))} cannot be set in a plan; leave it out")
    given = {key: value for key, value in options.items() if key not in _OWN}
    # a plan goes on for days: neither steps nor patience end a model unless its entry says so
    given = {"licence": request.licence, "memory_gib": request.memory_gib, "patience": 1_000_000} | given
    if not {"steps", "minutes"} & given.keys():
        given["steps"] = 10_000_000
    try:
        model = f"{request.destination.rstrip('/')}/{name}"
        return Entry(name, float(share), TrainRequest(source=request.source, model=model, **given))
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _is_newer(path: str, than: str) -> bool:
    """Tell whether a local file is there and was written after another."""
    return Path(path).exists() and Path(path).stat().st_mtime_ns >= Path(than).stat().st_mtime_ns


def _standing(entry: Entry) -> Standing:
    """Read how far a model has come in earlier sessions, from its checkpoint."""
    url = f"{entry.training.model}.checkpoint.safetensors"
    found = load_progress(url, entry.training.task, PLAIN)
    standing = Standing(entry.name, entry.training.task, entry.share)
    if found is None:
        return standing
    progress = found[0]
    score = progress.history[-1]["score"] if progress.history else None
    cooled = load_progress(cooldown_url(url), entry.training.task, PLAIN)
    ended = cooled is not None and cooled[0].cooldown is not None and cooled[0].cooldown.reason != "asked"
    over = ended and cooled is not None and cooled[0].step >= (entry.training.steps or 0)
    state = "done" if over and _is_newer(f"{entry.training.model}.safetensors", cooldown_url(url)) else "waiting"
    return replace(standing, steps=progress.step, seconds=progress.seconds, score=score, before=score, state=state)
