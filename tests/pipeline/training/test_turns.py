"""A plan of trainings: shares and turns, killed and gone on with, words for what is wrong with it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file
from skimage import data as photographs

from pipeline.errors import RequestError
from pipeline.requests.models import TrainPlanRequest, TrainRequest
from pipeline.training import turns
from pipeline.training.train import alone_at, run_training
from pipeline.training.turns import Standing, read_plan_file, run_turns
from tests.processes import ROOT

OPTIONS = {"batch": 2, "crop": 64, "validate_every": 4, "precision": "float32"}
OPTIONS |= {"sizes": {"widths": [8, 8], "blocks": 1}}
RUN = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from pipeline.requests.models import TrainPlanRequest
from pipeline.training.turns import run_turns
run_turns(TrainPlanRequest(**json.loads(sys.argv[1])), lambda standings: None)
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("coffee", "chelsea", "astronaut"):
        cv2.imwrite(str(folder / f"{name}.png"), np.ascontiguousarray(getattr(photographs, name)()[:256, :256, ::-1]))
    return folder


def plan(folder: Path, pictures: Path, models: dict, **changes: object) -> TrainPlanRequest:
    folder.mkdir(exist_ok=True)
    (folder / "plan.yaml").write_text(json.dumps({"models": models}))
    settings = {"plan": str(folder / "plan.yaml"), "source": (str(pictures),), "destination": str(folder / "out")}
    return TrainPlanRequest(**(settings | {"nice": 0} | changes))  # type: ignore[arg-type]


def two(steps: int) -> dict:
    first = {"task": "denoise", "steps": steps, "share": 2}
    return {"one": first | OPTIONS, "two": {"task": "deblur", "steps": steps} | OPTIONS}


def weights(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    return {path.name: load_file(path) for path in sorted(folder.glob("???.safetensors"))}


def assert_same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() == {"one.safetensors", "two.safetensors"}
    assert all(np.array_equal(first[name][k], second[name][k]) for name in first for k in first[name])


def kill_at_random(request: TrainPlanRequest, seconds: float) -> None:
    """Start the plan in a process of its own and kill it, and not its turns, after a while."""
    command = [sys.executable, "-c", RUN, request.model_dump_json()]
    process = subprocess.Popen(command, cwd=ROOT)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_models_are_trained_in_turns_and_then_done(pictures: Path, tmp_path: Path) -> None:
    """Turns of seconds; each ends with weights, card and page, and the same command has nothing more to do.

    One that fails does not end the others.
    """
    told: list[list[Standing]] = []
    models = two(12) | {"other": {"task": "deblur", "start": "nowhere.safetensors", "steps": 6} | OPTIONS}
    ended = run_turns(plan(tmp_path, pictures, models, turn=0.05, at_once=2), told.append)
    failed = ended.pop()
    assert (failed.state, failed.word.startswith("there is nothing at nowhere.safetensors")) == ("failed", True)
    assert [(one.name, one.state, one.steps, one.word) for one in ended] == [
        ("one", "done", 12, ""), ("two", "done", 12, ""),
    ]  # fmt: skip
    assert all(one.held_out for one in ended)
    assert any(one.state == "training" for line in told for one in line)
    for name in ("one", "two"):
        card = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert card["steps"] == 12
        assert (tmp_path / "out" / f"{name}.html").exists()
    again = run_turns(plan(tmp_path, pictures, {"one": models["one"]}, turn=0.05), told.append)
    assert [(one.state, one.steps) for one in again] == [("done", 11)]  # of the constant part


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_plan_that_was_killed_goes_on_to_the_same_weights(pictures: Path, tmp_path: Path) -> None:
    run_turns(plan(tmp_path / "a", pictures, two(12)), lambda standings: None)
    killed = plan(tmp_path / "b", pictures, two(12))
    kill_at_random(killed, 9)
    run_turns(killed, lambda standings: None)
    assert_same(tmp_path / "a" / "out", tmp_path / "b" / "out")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_kills_at_random_moments_change_no_weight(pictures: Path, tmp_path: Path) -> None:
    models = two(60)
    # on as many threads, for sums of other numbers of threads differ in their last bits
    run_turns(plan(tmp_path / "a", pictures, models, at_once=2), lambda standings: None)
    killed = plan(tmp_path / "b", pictures, models, turn=0.2, at_once=2)
    generator = random.Random(5)
    for _ in range(5):
        kill_at_random(killed, generator.uniform(4, 14))
    run_turns(killed, lambda standings: None)
    assert_same(tmp_path / "a" / "out", tmp_path / "b" / "out")


@pytest.mark.slow
def test_a_session_of_minutes_ends_with_cooled_weights(pictures: Path, tmp_path: Path) -> None:
    """The checkpoints stay as they are, to go on from in the next session."""
    models = {"one": {"task": "denoise"} | OPTIONS}
    request = plan(tmp_path, pictures, models, minutes=1.5, cooldown=0.5, turn=60)
    (ended,) = run_turns(request, lambda standings: None)
    assert (ended.state, ended.word) == ("cooled", "")
    assert (tmp_path / "out" / "one.safetensors").exists()
    (before,) = run_turns(plan(tmp_path, pictures, models, minutes=0.001), lambda standings: None)
    assert before.state == "waiting"
    assert 0 < before.steps < ended.steps


@pytest.mark.slow
def test_a_turn_that_hangs_is_killed_and_its_model_is_cooled_all_the_same(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_GRACE_S", 2.0)
    request = plan(tmp_path, pictures, {"one": {"task": "denoise"} | OPTIONS}, minutes=1.5, cooldown=0.8, turn=60)
    stopped: list[int] = []

    def stop(standings: list[Standing]) -> None:
        if not stopped and standings[0].steps >= 8:
            (turn,) = (int(pid) for pid in subprocess.check_output(["pgrep", "-P", str(os.getpid())]).split()
                       if b"turn" in Path(f"/proc/{int(pid)}/cmdline").read_bytes())  # fmt: skip
            stopped.append(turn)
            os.kill(turn, signal.SIGSTOP)

    (ended,) = run_turns(request, stop)
    assert stopped
    assert ended.state == "cooled"


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="sessions do not share the processor here")
def test_turns_stand_back_behind_other_sessions(pictures: Path, tmp_path: Path) -> None:
    """A nice value alone would count only within the session of their own that they have."""
    found: list[str] = []

    def look(standings: list[Standing]) -> None:
        for pid in subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, check=False).stdout.split():
            with suppress(OSError):
                if b"turn" in Path(f"/proc/{int(pid)}/cmdline").read_bytes():
                    found.append(Path(f"/proc/{int(pid)}/autogroup").read_text())

    run_turns(plan(tmp_path, pictures, {"one": {"task": "denoise", "steps": 4} | OPTIONS}, nice=11), look)
    assert any(said.endswith("nice 11\n") for said in found), found


def test_ctrl_c_ends_every_turn_after_its_step(pictures: Path, tmp_path: Path) -> None:
    request = plan(tmp_path, pictures, {"one": {"task": "denoise"} | OPTIONS})
    process = subprocess.Popen([sys.executable, "-c", RUN, request.model_dump_json()], cwd=ROOT, stderr=subprocess.PIPE)
    checkpoint = tmp_path / "out" / "one.checkpoint.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in words
    assert not (tmp_path / "out" / "one.lease.json").exists()


def test_two_trainings_of_one_model_at_once_are_refused(pictures: Path, tmp_path: Path) -> None:
    request = TrainRequest(task="denoise", source=(str(pictures),), model=str(tmp_path / "m"), steps=2, **OPTIONS)
    with alone_at(request), pytest.raises(RequestError, match=r"m.* is in use by a .* \(process \d+"):
        run_training(request)
    elsewhere = request.model_copy(update={"model": str(tmp_path / "n"), "checkpoint": str(tmp_path / "m.safetensors")})
    with alone_at(request), pytest.raises(RequestError, match="is in use by"):
        run_training(elsewhere)
    assert run_training(request) is not None
    assert not list(tmp_path.glob("*.lease.json"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("models: [", "cannot be read"),
        ("[]", "has no models"),
        ("models: {}", "has no models"),
        ("models: {a: 3}", "model 'a' is no mapping"),
        ("models: {a: {task: dance}}", "model 'a': task"),
        ("models: {a: {task: denoise, share: many}}", "share 'many'"),
        ("models: {a: {task: denoise, source: x}}", "source cannot be set in a plan"),
        ("models: {a: {task: denoise, stepz: 3}}", "model 'a': stepz"),
    ],
)
def test_what_is_no_plan_is_told_with_its_place(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(content)
    with pytest.raises(RequestError, match=told):
        read_plan_file(TrainPlanRequest(plan=str(tmp_path / "plan.yaml"), source=("x",), destination="y"))


def test_the_plan_of_the_shipped_weights_is_one() -> None:
    request = TrainPlanRequest(plan=str(ROOT / "models" / "plan.yaml"), source=("x",), destination="y")
    entries = read_plan_file(request)
    assert {"codec-small", "denoise-small"} <= {entry.name for entry in entries}
