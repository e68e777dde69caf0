"""Streams decode to the same symbols whatever the machine is set to: every setting encodes, every setting decodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.codec.exactness import SETTINGS


def run(folder: Path, names: list[str]) -> dict[str, dict]:
    """Encode, then decode, under all settings; those with an environment of their own get a process of their own."""
    apart = [name for name in names if "environment" in SETTINGS[name]]
    for name in apart:
        process(folder, "encode", [name])
    found = process(folder, "encode,decode", [name for name in names if name not in apart])
    for name in apart:
        found |= process(folder, "decode", [name])
    return found


def process(folder: Path, actions: str, names: list[str]) -> dict[str, dict]:
    environment = os.environ | SETTINGS[names[0]].get("environment", {})  # type: ignore[operator]
    environment.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, "-m", "tests.models.codec.exactness", str(folder), actions, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "names",
    [
        ["one thread", "seven threads", "no oneDNN", "batches of four", "no vector instructions"],
        pytest.param(
            [name for name in SETTINGS if name != "a GPU" or torch.cuda.is_available()], marks=pytest.mark.slow
        ),
    ],
    ids=["some", "all"],
)
def test_every_setting_decodes_what_every_setting_encoded(names: list[str], tmp_path: Path) -> None:
    """Symbols are the same, and so are pixels but for one level."""
    found = run(tmp_path, names)
    for name in names:
        assert set(found[name]) == set(names)
        assert all(exact for exact, _ in found[name].values()), f"{name} decoded other symbols"
        assert found[name] == found[names[0]], f"{name} found other latents"
    # bfloat16 is a user's choice, not another machine; everything else keeps the promise of docs/format.md
    for encoder in names:
        pixels = [
            np.frombuffer((tmp_path / f"{encoder} by {decoder}.npy").read_bytes(), np.uint8).astype(int)
            for decoder in names
            if "bfloat16" not in decoder
        ]
        assert max(np.abs(other - pixels[0]).max() for other in pixels) <= 1
