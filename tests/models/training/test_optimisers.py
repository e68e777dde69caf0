"""Optimisers: each learns, Muon's step is orthogonal, a checkpoint of one is refused by another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.errors import CheckpointError
from models.training.data import TrainingSet
from models.training.loop import TrainingPlan, train
from models.training.optimisers import MOMENTS, build_optimiser, moments, orthogonal


@pytest.mark.parametrize("name", MOMENTS)
def test_every_optimiser_fits_a_line(name: str) -> None:
    """A matrix, a convolution and a bias: all kinds of parameters there are."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 4))
    picture = torch.rand(32, 3, 4, 4)
    wanted = picture.mean((2, 3)) @ torch.rand(3, 4) + 0.3
    groups = [{"params": list(network.parameters()), "lr": {"sgd": 0.05, "momentum": 0.01}.get(name, 5e-3)}]
    optimiser = build_optimiser(name, groups, 1e-5)
    losses = []
    for _ in range(200):
        loss = (network(picture) - wanted).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    for parameter in network.parameters():
        kept = {k for k, v in optimiser.state[parameter].items() if v is not None}
        assert kept == moments(name, parameter)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_muons_step_is_nearly_orthogonal(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.svdvals(matrix)
    # five iterations lift singular values from about a hundredth of the norm
    clear = values > 0.02 * matrix.norm()
    lifted = torch.linalg.svdvals(orthogonal(matrix))[clear]
    assert ((lifted > 0.3) & (lifted < 1.4)).all()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no optimiser 'lion'.*adamw"):
        build_optimiser("lion", [], 0)


def test_a_checkpoint_is_resumed_by_its_own_optimiser_only(tmp_path: Path) -> None:
    """Muon's two moments are not Adam's three, and both say so before a step is taken."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    pictures = TrainingSet([pixels], [pixels])
    small = {"widths": [4, 4], "blocks": 1}
    plan = TrainingPlan(task="denoise", checkpoint=str(tmp_path / "c.safetensors"), steps=2, batch=1, sizes=small)
    train(plan, pictures)
    with pytest.raises(CheckpointError, match="not written by adamw"):
        train(replace(plan, steps=4, optimiser="adamw"), pictures)
    assert train(replace(plan, steps=4), pictures)[1].step == 4
