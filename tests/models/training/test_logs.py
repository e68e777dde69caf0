"""TensorBoard logs, read back as TensorBoard reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.errors import TrainingError
from models.training.logs import EVERY, tensorboard_log
from models.training.loop import Report
from tests.processes import ROOT


def session(folder: Path, steps: range, loss: float = 1.0) -> None:
    """What a session logs that takes two pictures and a tenth of a second a step and validates every tenth."""
    with tensorboard_log(str(folder)) as listen:
        for step in steps:
            validation = {"psnr at 4": 30.0 + loss} if step % 10 == 0 else None
            listen(Report(step, step / 100, step / 10, 2 * step, 1e-3, {"loss": loss * step}, validation))


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every curve."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_curves_hold_means_rates_and_validations(tmp_path: Path) -> None:
    """Training figures are means since the last point; speed is that of the steps alone."""
    session(tmp_path, range(1, 2 * EVERY + 1))
    found = curves(tmp_path)
    assert set(found) == {"train/loss", "train/learning_rate", "train/pictures_per_second", "held-out/psnr_at_4"}
    assert [step for step, _ in found["held-out/psnr_at_4"]] == list(range(10, 2 * EVERY + 1, 10))
    assert found["train/loss"][0] == (10, pytest.approx(5.5))
    assert all(value == pytest.approx(20) for _, value in found["train/pictures_per_second"])


def test_a_resumed_run_goes_on_in_the_same_curves_without_overlap(tmp_path: Path) -> None:
    """The first session logged to step 40 and was killed; its checkpoint was of step 20."""
    session(tmp_path, range(1, 41), loss=1.0)
    session(tmp_path, range(21, 61), loss=2.0)
    assert curves(tmp_path)["held-out/psnr_at_4"] == [
        (step, 31.0 if step <= 20 else 32.0) for step in range(10, 61, 10)
    ]  # fmt: skip


def test_a_log_that_is_not_local_is_refused() -> None:
    with pytest.raises(TrainingError, match="folder of this machine"), tensorboard_log("s3://bucket/log"):
        pass


def test_without_tensorboard_the_message_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from models.training.logs import tensorboard_log\n"
        "try: tensorboard_log('x').__enter__()\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "pip install tensorboard" in done.stdout, done.stderr
