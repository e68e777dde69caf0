"""What CI makes of known vulnerabilities."""

from __future__ import annotations

import datetime
import importlib.machinery
import importlib.util
from typing import Any

import pytest

from tests.processes import ROOT


@pytest.fixture
def audit() -> Any:
    """The program `.ci/audit` as a module."""
    loader = importlib.machinery.SourceFileLoader("audit", str(ROOT / ".ci" / "audit"))
    spec = importlib.util.spec_from_loader("audit", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


FOUND = [
    {"name": "fine", "version": "1.0", "vulns": []},
    {"name": "torn", "version": "2.0", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.1"]}]},
]


@pytest.mark.parametrize(
    ("found", "accepted", "days", "code", "told"),
    [
        (None, None, 0, 0, "cannot be reached"),
        (FOUND[:1], None, 0, 0, "0 known vulnerabilities"),
        (FOUND, None, 0, 1, "torn 2.0: PYSEC-1, fixed in 2.1"),
        (FOUND, "CVE-1", 1, 0, "nobody asks it"),
        (FOUND, "CVE-1", -1, 1, "torn 2.0: PYSEC-1"),
    ],
)
def test_a_vulnerability_fails_unless_it_is_accepted_for_now(
    found: Any, accepted: str | None, days: int, code: int, told: str, audit: Any, monkeypatch: Any, capsys: Any
) -> None:
    """Accepted by any of its names, with a reason, up to a day."""
    until = datetime.date.today() + datetime.timedelta(days)
    entry = {"package": "torn", "id": accepted, "reason": "nobody asks it", "until": until}
    monkeypatch.setattr(audit, "advisories", lambda: found)
    monkeypatch.setattr(audit, "accepted_ones", lambda: [entry] if accepted else [])
    assert audit.main() == code
    assert told in capsys.readouterr().out
