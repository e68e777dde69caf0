"""Suites under a real Prefect server, and from a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter

from flows.evaluate import evaluate
from flows.orchestration.progress import listen
from pipeline.errors import RequestError
from pipeline.events import Finished, Planned
from pipeline.requests.pictures import EvaluateRequest
from pipeline.suites.conclude import SuiteEvaluation
from pipeline.suites.run import evaluate_suite
from tests.flows.in_process import invoke
from tests.pipeline.suites.test_suite import photograph
from tests.restoration_models import random_model
from tests.runs import snapshot


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two parts of photographs and one file that is none."""
    folder = tmp_path / "set5"
    folder.mkdir()
    for name in ("astronaut", "coffee"):
        cv2.imwrite(str(folder / f"{name}.png"), photograph(name, side=80)[:, :, ::-1])
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def asked(source: Path, destination: Path, **changes: Any) -> EvaluateRequest:
    settings: dict[str, Any] = {"suite": "upscale", "workers": 2, "device": "cpu"}
    return EvaluateRequest(source=str(source), destination=str(destination), **(settings | changes))


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_gives_what_a_plain_run_gives_and_leaves_artifacts(source: Path, tmp_path: Path) -> None:
    """State Completed, a table of means and a link to the report; the same figures as without Prefect."""
    told: dict[type, Any] = {}
    with listen(lambda event: told.update({type(event): event})):
        state = evaluate(asked(source, tmp_path / "out"), return_state=True)
    found: SuiteEvaluation = told[Finished].result
    assert state.is_completed()
    assert str(state.message).endswith(f" failed (run {found.summary.run})")
    assert (found.pictures, told[Planned].objects) == (2, 3)
    plain = evaluate_suite(asked(source, tmp_path / "plain"))
    assert [(row["method"], row["psnr_y"]) for row in found.means] == [
        (row["method"], row["psnr_y"]) for row in plain.means
    ]
    with get_client(sync_client=True) as client:
        (run,) = [run for run in client.read_flow_runs() if run.id == state.state_details.flow_run_id]
        wanted = FlowRunFilter(id={"any_": [run.id]})  # type: ignore[arg-type]
        kept = {artifact.key: artifact for artifact in client.read_artifacts(flow_run_filter=wanted)}
    assert {row["setting"] for row in json.loads(kept["evaluate-suite"].data)} == {"x2", "x3", "x4", "realistic-x2"}
    assert found.report in kept["evaluate-page"].data


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_refuses_before_it_measures(source: Path, tmp_path: Path) -> None:
    """A model of another task fails the flow with its message, and nothing is written."""
    model = random_model(tmp_path / "models", "deblock")
    with pytest.raises(RequestError, match="is for 'deblock', not for 'upscale-x2'"):
        evaluate(asked(source, tmp_path / "out", model=(model,)))
    assert not (tmp_path / "out").exists()


def test_the_command_prints_every_method_and_where_the_report_is(source: Path, tmp_path: Path) -> None:
    """Methods against settings, published rows beside them; once more: nothing to do, no object changed."""
    out, published = tmp_path / "out", tmp_path / "published.json"
    row = {"method": "Theirs", "dataset": "Set5", "scale": 2, "psnr_y_db": 38.0, "ssim_y": 0.96}
    published.write_text(json.dumps({"super_resolution": [row]}))
    model = random_model(tmp_path / "models", "upscale-x2")
    arguments = ["evaluate", source, out, "--suite", "upscale", "--model", model, "--published", published]
    arguments += ["--device", "cpu", "--no-prefect"]
    done = invoke(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Super-resolution: 2 pictures of Set5, PSNR-Y dB / SSIM-Y" in done.stdout
    for text in ("bicubic, a = -0.5", "Lanczos, a = 3", "upscale-x2-0-0.1", "Theirs (published)", "38.00 / 0.9600"):
        assert text in done.stdout
    assert "2 pictures measured, 1 failed" in done.stdout
    (report,) = out.glob("runs/*/evaluation/evaluation.html")
    assert str(report) in done.stdout
    before = snapshot(out)
    again = invoke(*arguments)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert "Lanczos, a = 3" in again.stdout
    assert snapshot(out) == before


def test_wrong_usage_is_one_line_and_code_2(source: Path, tmp_path: Path) -> None:
    """Unknown models and sets are told with what there is; a file of figures that is missing is code 3."""
    for changes, code, told in [
        (["--model", "nothing"], 2, "no model called 'nothing'"),
        (["--published", tmp_path / "absent.json"], 3, "does not exist"),
        (["--anchor", "webp"], 2, "--anchor is about codecs"),
    ]:
        done = invoke("evaluate", source, tmp_path / "out", "--suite", "upscale", "--no-prefect", *changes)
        assert done.returncode == code, done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
