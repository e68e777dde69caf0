"""Optimisers: what is a matrix to them, how matrices are lifted, that each learns, goes on, and is told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from models.autoencoders import build_autoencoder
from models.errors import CheckpointError
from models.training.data import TrainingSet
from models.training.loop import Report, TrainingPlan, train
from models.training.optimisers import OPTIMISERS, build_optimiser, matrices, moments, orthogonal
from models.training.small_batches import SmallTrainingSet
from models.training.small_pictures import SmallPictures
from models.training.tasks import TASKS, suited_rate
from tests.models.autoencoders.digits import digits
from tests.models.parameter_groups import parameter_groups

SMALL_CODEC = {"width": 16, "latents": 32, "down": 1, "up": 1, "hyper": 8}
SMALL_DENOISER = {"widths": [4, 8], "blocks": 1}
SMALL_DENSE = {"form": "dense", "shape": [1, 16, 16], "widths": [32, 8]}


def test_matrices_of_the_codec_are_its_full_convolutions_and_integer_layers() -> None:
    network = TASKS["codec"].build(**SMALL_CODEC)
    named = dict(network.named_parameters())
    tables = {"log_gain", "hyper_mean", "hyper_log_scale", "first_quality", "join_step", "level_quality"}
    depthwise = {"mix.2.weight", "layers.2.weight", "layers.7.weight", "_mix.weight", "around.weight"}
    others = {
        name
        for name in named
        if name.endswith(("bias", "lapped.weight", *depthwise)) or name.removeprefix("prior.") in tables
    }
    assert others >= {f"prior.{name}" for name in tables}
    assert matrices(network) == set(named) - others


def test_every_weight_of_a_restoration_is_a_matrix() -> None:
    """Plain, strided and transposed convolutions, and no biases."""
    network = TASKS["denoise"].build(**SMALL_DENOISER)
    assert matrices(network) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize(
    ("form", "sizes", "others"),
    [
        ("recurrent", {"latent": 4, "hidden": 8}, {"places"}),
        ("vector-quantised", {"widths": [8, 16], "codes": 16, "channels": 4}, {"codebook", "usage"}),
    ],
)
def test_places_and_code_books_are_no_matrices(form: str, sizes: dict, others: set[str]) -> None:
    network = build_autoencoder(form, (1, 16, 16), **sizes)
    named = dict(network.named_parameters())
    assert matrices(network) == {name for name, p in named.items() if p.ndim > 1} - others
    assert others <= set(named)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_muons_step_is_nearly_orthogonal(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    (lifted,) = orthogonal([matrix])
    clear = values > 0.01 * matrix.norm()
    gains = (left.T @ lifted @ right.T).diagonal()[clear]
    assert ((gains > 0.9) & (gains < 1.1)).all()
    assert torch.linalg.svdvals(lifted).max() < 1.1


def test_nothing_is_made_of_nothing() -> None:
    assert torch.equal(orthogonal([torch.zeros(3, 5)])[0], torch.zeros(3, 5))


def test_matrices_at_once_are_as_one_by_one_in_any_order() -> None:
    torch.manual_seed(0)
    shapes = [(8, 24), (24, 8), (8, 8), (8, 24), (5, 70), (8, 8), (24, 8)]
    given_ = [torch.randn(shape) for shape in shapes]
    together = orthogonal(given_)
    for matrix, lifted in zip(given_, together, strict=True):
        assert lifted.shape == matrix.shape
        torch.testing.assert_close(orthogonal([matrix])[0], lifted, rtol=1e-4, atol=1e-5)
    for lifted, again in zip(together, orthogonal(given_[::-1])[::-1], strict=True):
        assert torch.equal(lifted, again)


@pytest.mark.parametrize("name", ["muon", "soap"])
def test_the_order_and_number_of_groups_changes_no_bit(name: str) -> None:
    def stepped(grouped: bool) -> list[Tensor]:
        torch.manual_seed(0)
        network = TASKS["codec"].build(**SMALL_CODEC)
        groups = parameter_groups(network, 1e-3)
        if not grouped:
            groups = [dict(group, params=[pair]) for group in groups[::-1] for pair in group["params"][::-1]]
        optimiser = build_optimiser(name, groups, 1e-4)
        for _ in range(12):
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape)
            optimiser.step()
        return list(network.parameters())

    assert all(torch.equal(one, other) for one, other in zip(stepped(True), stepped(False), strict=True))


@pytest.mark.parametrize("name", ["muon", "soap"])
def test_what_is_no_matrix_takes_adams_step(name: str) -> None:
    vectors = {}
    for optimiser_name in (name, "adamw"):
        torch.manual_seed(0)
        layer = nn.Conv2d(4, 4, 3, groups=4)
        optimiser = build_optimiser(optimiser_name, parameter_groups(layer, 1e-2), 1e-2)
        for _ in range(3):
            layer.weight.grad, layer.bias.grad = torch.randn(4, 1, 3, 3), torch.randn(4)  # type: ignore[union-attr]
            optimiser.step()
        vectors[optimiser_name] = layer.weight
    torch.testing.assert_close(vectors[name], vectors["adamw"])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_fits_a_line(name: str) -> None:
    """A matrix, a convolution and a bias: all kinds of parameters there are."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 4))
    picture = torch.rand(32, 3, 4, 4)
    wanted = picture.mean((2, 3)) @ torch.rand(3, 4) + 0.3
    groups = parameter_groups(network, {"sgd": 0.05, "momentum": 0.01}.get(name, 5e-3))
    optimiser = build_optimiser(name, groups, 1e-5)
    losses = []
    for _ in range(200):
        loss = (network(picture) - wanted).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    among = matrices(network)
    for parameter_name, parameter in network.named_parameters():
        kept = {k: tuple(v.shape) for k, v in optimiser.state[parameter].items() if v is not None}
        assert kept == moments(name, parameter, parameter_name in among)


@pytest.mark.parametrize(("name", "alike"), [("soap", True), ("muon", True), ("adamw", False)])
def test_turning_inputs_and_outputs_changes_nothing_but_to_adam(name: str, alike: bool) -> None:
    """Eigenbases and polar factors turn along; Adam knows only the axes. In double precision, over three renewals."""
    torch.manual_seed(0)
    inputs, truth = torch.randn(64, 6).double() * torch.logspace(0, -1, 6), torch.randn(6, 6).double()
    rows, columns = (torch.linalg.qr(torch.randn(6, 6).double())[0] for _ in range(2))

    def fitted(left: Tensor, right: Tensor) -> Tensor:
        layer = nn.Linear(6, 6, bias=False).double()
        nn.init.zeros_(layer.weight)
        optimiser = build_optimiser(name, parameter_groups(layer, 1e-2), 0)
        for _ in range(35):
            optimiser.zero_grad()
            (layer(inputs @ right) - inputs @ truth.T @ left).pow(2).mean().backward()
            optimiser.step()
        return left @ layer.weight.detach() @ right.T

    unturned = torch.eye(6).double()
    plain, turned = fitted(unturned, unturned), fitted(rows, columns)
    assert torch.allclose(plain, turned, rtol=1e-3, atol=1e-4) == alike
    assert plain.norm() > 0.1


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no optimiser 'lion'.*adamw"):
        build_optimiser("lion", [], 0)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize(("task", "sizes"), [("denoise", SMALL_DENOISER), ("autoencoder", SMALL_DENSE)])
def test_an_optimiser_asked_for_by_name_learns(task: str, sizes: dict, name: str, tmp_path: Path) -> None:
    losses: list[float] = []
    plan = TrainingPlan(
        task=task,
        checkpoint=str(tmp_path / "c.safetensors"),
        steps=110,
        batch=2,
        crop=32,
        optimiser=name,
        device="cpu",
        validate_every=110,
        sizes=sizes,
    )
    train(plan, pictures_of(task), lambda line: losses.append(line.figures["loss"]))
    assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:5])


def test_every_task_has_a_rate_for_every_optimiser() -> None:
    for task in TASKS.values():
        assert set(task.rates) == set(OPTIMISERS)
        # a request takes rates below 1
        assert all(0 < rate < 1 for rate in task.rates.values())
        assert suited_rate(task, None) == task.rates[task.optimiser]


@pytest.mark.parametrize("name", ["muon", "soap"])
def test_going_on_gives_the_bits_of_an_undisturbed_run(name: str, tmp_path: Path) -> None:
    """Fourteen steps, so that SOAP renews its bases once before the break and moments are in them."""

    def run(plan: TrainingPlan, break_at: int | None = None) -> dict[str, Tensor]:
        broken = False

        def listen(line: Report) -> None:
            nonlocal broken
            broken = line.step == break_at

        train(plan, pictures_of("denoise"), listen, lambda: broken)
        return load_file(plan.checkpoint)

    plan = TrainingPlan(
        task="denoise",
        checkpoint=str(tmp_path / "whole.safetensors"),
        steps=14,
        batch=1,
        crop=32,
        optimiser=name,
        device="cpu",
        validate_every=50,
        sizes=SMALL_DENOISER,
    )
    whole = run(plan)
    parted = replace(plan, checkpoint=str(tmp_path / "parted.safetensors"))
    run(parted, break_at=11)
    again = run(parted)
    assert whole.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_a_checkpoint_is_resumed_by_its_own_optimiser_only(tmp_path: Path) -> None:
    """Moments of one are not those of another, in name or in shape, which shows before a step is taken."""
    small = {"widths": [4, 4], "blocks": 1}
    plan = TrainingPlan(task="denoise", checkpoint=str(tmp_path / "c.safetensors"), steps=2, batch=1, sizes=small)
    train(plan, pictures_of("denoise"))
    for other in ("adamw", "soap"):
        with pytest.raises(CheckpointError, match=rf"other .*optimiser \(muon; now {other}\)"):
            train(replace(plan, steps=4, optimiser=other), pictures_of("denoise"))
    assert train(replace(plan, steps=4), pictures_of("denoise"))[1].step == 4


def pictures_of(task: str) -> TrainingSet | SmallTrainingSet:
    """Something to learn from: smooth blobs of colour, or digits."""
    if task == "autoencoder":
        pictures = (digits(200) * 255).round().to(torch.uint8)
        names = [str(number) for number in range(len(pictures))]
        whole = SmallPictures(pictures, None, names, [])
        return SmallTrainingSet(whole.at(list(range(180))), whole.at(list(range(180, 200))), ())
    waves = np.linspace(0, 9, 96)
    plane = 127 + 60 * np.sin(waves)[:, None] + 60 * np.cos(1.3 * waves)[None]
    pixels = np.stack([plane, plane.T, plane[::-1]], 2).clip(0, 255).astype(np.uint8)
    return TrainingSet([pixels], [pixels])
