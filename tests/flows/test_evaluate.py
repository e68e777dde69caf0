"""Evaluations under a real Prefect server, and from a shell."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter

from flows.evaluate import evaluate
from flows.orchestration.progress import listen
from pipeline.errors import RequestError
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.evaluate import evaluate as evaluate_plainly
from pipeline.events import Finished, Planned
from pipeline.requests.pictures import EvaluateRequest
from tests.flows.in_process import invoke
from tests.pipeline.evaluation.test_bd_rate import EMBEDDED
from tests.runs import fill, snapshot

CODECS = ("jpeg", "webp", "png")
OPTIONS = ("--points", 5, "--device", "cpu", "--no-prefect", *(f"--codecs={codec}" for codec in CODECS))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four pictures and one file that is none: two shards of three."""
    folder = fill(tmp_path / "source", 4, height=96, width=128)
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def asked(source: Path, destination: Path, **changes: Any) -> EvaluateRequest:
    settings: dict[str, Any] = {"codecs": CODECS, "points": 5, "shard_size": 3, "workers": 2, "device": "cpu"}
    return EvaluateRequest(source=str(source), destination=str(destination), **(settings | changes))


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_gives_what_a_plain_evaluation_gives_and_leaves_artifacts(source: Path, tmp_path: Path) -> None:
    """State Completed, a table of BD-rates and a link to the report; the same points as without Prefect."""
    told: dict[type, Any] = {}
    with listen(lambda event: told.update({type(event): event})):
        state = evaluate(asked(source, tmp_path / "out"), return_state=True)
    found: Evaluation = told[Finished].result
    assert state.is_completed()
    assert str(state.message).endswith(f" rows (run {found.summary.run})")
    assert (found.pictures, found.left_out, told[Planned].shards) == (4, 1, 2)
    assert Path(found.report or "").exists()
    plain = evaluate_plainly(asked(source, tmp_path / "plain"))
    assert [(point["branch"], point["bpp"]) for point in found.points] == [
        (point["branch"], point["bpp"]) for point in plain.points
    ]
    with get_client(sync_client=True) as client:
        (run,) = [run for run in client.read_flow_runs() if run.id == state.state_details.flow_run_id]
        wanted = FlowRunFilter(id={"any_": [run.id]})  # type: ignore[arg-type]
        kept = {artifact.key: artifact for artifact in client.read_artifacts(flow_run_filter=wanted)}
    rows = json.loads(kept["evaluate-bd-rate"].data)
    assert {row["codec"] for row in rows} == {"jpeg", "webp"}
    assert str(found.report) in kept["evaluate-page"].data
    assert f"runs/{found.summary.run}/report.html" in kept["evaluate-report"].data
    assert not any(key.startswith("develop-") for key in kept)


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_refuses_before_it_develops(source: Path, tmp_path: Path) -> None:
    """An anchor that nobody measures fails the flow with its message, and nothing is written."""
    with pytest.raises(RequestError, match="no curve 'png' to be the anchor"):
        evaluate(asked(source, tmp_path / "out", anchor="png"))
    assert not (tmp_path / "out").exists()


def test_the_command_prints_every_codec_and_where_the_report_is(source: Path, tmp_path: Path) -> None:
    """A row for every codec and published curve; once more: nothing to do, the same table, no object changed."""
    out = tmp_path / "out"
    arguments = ["evaluate", source, out, *OPTIONS, "--published", EMBEDDED, "--curves", "vtm"]
    done = invoke(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("JPEG, optimised", "WebP, method 6", "PNG", "vtm (published)", "4 pictures; BD-rates against JPEG"):
        assert text in done.stdout
    assert "1 object left out" in done.stdout
    (report,) = out.glob("runs/*/evaluation/evaluation.html")
    assert str(report) in done.stdout
    before = snapshot(out)
    again = invoke(*arguments)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert "WebP, method 6" in again.stdout
    assert snapshot(out) == before


def test_wrong_usage_is_one_line_and_code_2(source: Path, tmp_path: Path) -> None:
    """Unknown anchors and codecs are told with what there is; a file of curves that is missing is code 3."""
    for changes, code, told in [
        (["--anchor", "nope"], 2, "measured here are jpeg, webp"),
        (["--codecs", "jpg"], 2, "there is darkroom, jpeg-plain"),
        (["--published", tmp_path / f"{uuid.uuid4().hex}.json"], 3, "does not exist"),
    ]:
        done = invoke("evaluate", source, tmp_path / "out", *OPTIONS, *changes)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (code, 1), done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
