"""Verifying and tidying up under a real Prefect server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.orchestration.progress import listen
from flows.verify import gc, verify
from pipeline.events import Advanced, Finished
from pipeline.requests.upkeep import GcRequest, VerifyRequest
from pipeline.runs.finish import develop
from tests.runs import fill, request

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_flows_end_as_the_destination_is(tmp_path: Path) -> None:
    """Failed with a finding, Completed when it is repaired; gc says how many objects are gone."""
    out = tmp_path / "out"
    develop(request(fill(tmp_path / "source", 2), out, measure=False))
    (out / "pictures/gamma/001.png.png").unlink()
    leftover = out / "pictures/gamma/nobody.png"
    leftover.write_bytes(b"x")
    told: dict[type, list[Any]] = {}
    with listen(lambda event: told.setdefault(type(event), []).append(event)):
        found = verify(VerifyRequest(destination=str(out)), return_state=True)
        mended = verify(VerifyRequest(destination=str(out), repair=True), return_state=True)
        removed = gc(GcRequest(destination=str(out)), return_state=True)
    assert (found.is_failed(), found.message) == (True, "10 objects of 1 run checked, 1 wrong")
    assert mended.is_completed()
    assert (removed.message, leftover.exists()) == ("1 object of 1 byte removed", False)
    assert [len(one.result.findings) for one in told[Finished][:2]] == [1, 0]
    assert [one.good for one in told[Advanced]] == [False, False, True]
