"""Bytes from outside: every hostile stream is refused in words, in bounded memory, and never crashes the process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hostile_streams_are_refused(count: int) -> None:
    command = [sys.executable, "-m", "tests.models.codec.hostile", str(count), "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280 if count < 1000 else 3000)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sum(told["outcomes"].values()) == count
    assert not [outcome for outcome in told["outcomes"] if "another picture" in outcome]
    assert told["grown_mib"] < 200
    print(told)
