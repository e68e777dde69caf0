"""Restoration: every task trains, resumes and loads; networks take any size, scale, reach no further, tile."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from skimage import data as photographs
from torch import Tensor

from models.cards import Card
from models.errors import CheckpointError, ModelError
from models.inference import apply_in_batches, tiled
from models.registry import load_model, save_model
from models.restoration import degradations as spoil
from models.restoration.light import SAMPLE, LightEstimator, sample, undo
from models.restoration.network import RestorationNetwork
from models.restoration.tasks import RESTORATIONS, Restoration, build, loss
from models.training.data import TrainingSet
from models.training.finish import finish
from models.training.loop import TrainingPlan, train
from models.training.tasks import TASKS

SIZES = {"widths": (8, 8, 8, 8), "blocks": 1}
every_task = pytest.mark.parametrize("task", RESTORATIONS.values(), ids=RESTORATIONS)
#: one task of each kind of network: condition and scale
KINDS = ("denoise", "deblock", "inpaint", "upscale-x2", "upscale-x3", "upscale-x4", "enhance")
every_kind = pytest.mark.parametrize("task", [RESTORATIONS[name] for name in KINDS], ids=KINDS)
#: what only the network that looks at light has
LIGHT = {"stem.weight", *(f"light.{name}" for name in LightEstimator().state_dict())}


@lru_cache(maxsize=16)
def random_network(task: Restoration) -> RestorationNetwork:
    """Seeded weights, all of which take part (residual blocks and changes begin at little or nothing)."""
    network = build(task, **SIZES)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.5 / parameter[0].numel() ** 0.5, generator=generator)
    return network.eval().requires_grad_(False)


def condition_for(task: Restoration, picture: Tensor, generator: torch.Generator) -> Tensor | None:
    """What the task's network is told: a level, a mask that leaves one pixel in ten, or a sample of another picture."""
    if task.condition is None:
        return None
    if task.condition == "sample":
        return torch.rand(len(picture), 3, SAMPLE, SAMPLE, generator=generator)
    draw = torch.rand(picture[:, :1].shape, generator=generator)
    return (draw < 0.9).float() if task.condition == "mask" else torch.full_like(draw, 0.1)


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    """1 x 3 x 400 x 600 in 0..1."""
    return torch.from_numpy(photographs.coffee()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def pictures() -> TrainingSet:
    return TrainingSet([photographs.coffee(), photographs.chelsea()], [photographs.astronaut()])


def plan(path: Path, task: str, **changes: object) -> TrainingPlan:
    settings = {"steps": 3, "batch": 2, "validate_every": 3, "precision": "float32", "device": "cpu", "sizes": SIZES}
    return TrainingPlan(task, str(path / "run.safetensors"), **(settings | changes))  # type: ignore[arg-type]


@every_task
def test_every_task_trains_resumes_and_loads_from_its_card(
    task: Restoration, pictures: TrainingSet, tmp_path: Path
) -> None:
    """A run that was stopped ends with the bits of an undisturbed one, and what it leaves is the task's network."""
    whole, _ = train(plan(tmp_path / "a", task.name), pictures)
    first = iter([False])
    train(plan(tmp_path / "b", task.name), pictures, stopped=lambda: next(first, True))
    network, progress = train(plan(tmp_path / "b", task.name), pictures)
    assert progress.step == 3
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), network.parameters(), strict=True))
    url = str(tmp_path / "mine.safetensors")
    finish(url, network, progress, pictures, data="two photographs", training="a test")
    model = load_model(url, task.name)
    assert isinstance(model.network, RestorationNetwork)
    assert (model.network.scale, model.network.condition) == (task.scale, task.condition)
    assert (model.network.widths, model.network.blocks) == (SIZES["widths"], 1)
    assert task.summary in model.card.summary
    assert model.card.figures["held-out psnr"] == pytest.approx(progress.history[-1]["psnr"], abs=1e-3)


@every_task
def test_every_task_learns_one_picture(task: Restoration, photograph: Tensor) -> None:
    """The same degradation of one crop over and over: what is left of the error is a good part less."""
    torch.manual_seed(0)
    network = build(task, **SIZES)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    side = TASKS[task.name].crop
    clean = photograph[:, :, 100 : 100 + side, 200 : 200 + side].repeat(2, 1, 1, 1)
    losses = []
    for _ in range(50):
        torch.manual_seed(1)
        value, _ = loss(task, network, clean)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert sum(losses[-3:]) / 3 < 0.9 * losses[0]


@every_task
def test_scores_are_the_same_for_the_same_seed(task: Restoration, photograph: Tensor) -> None:
    """Weights are compared on the same noise, whatever was drawn before."""
    clean = photograph[:, :, :96, :96].repeat(2, 1, 1, 1)
    network = random_network(task)
    scores = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        score, figures = TASKS[task.name].score(network, clean)
        assert torch.equal(-score, figures["psnr"])
        scores.append(score)
    assert torch.equal(*scores)


@pytest.mark.parametrize("name", [name for name in RESTORATIONS if not name.startswith("upscale-x")])
def test_training_draws_anew_for_every_picture(name: str, photograph: Tensor) -> None:
    """Strengths, too; but from the same generator the same."""
    task = RESTORATIONS[name]
    same = photograph[:, :, :96, :96].expand(6, -1, -1, -1)
    spoiled = task.spoil(same, torch.Generator().manual_seed(0))
    assert len({tuple(picture.flatten().tolist()) for picture in spoiled.picture}) == 6
    again = task.spoil(same, torch.Generator().manual_seed(0))
    assert torch.equal(spoiled.picture, again.picture)


@every_task
def test_degradations_are_exact_in_half_precision_training(task: Restoration, photograph: Tensor) -> None:
    """What a network sees does not depend on the precision it computes in."""
    clean = photograph[:, :, :96, :96]
    network = random_network(task)
    torch.manual_seed(5)
    expected = loss(task, network, clean)[0].item()
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        seen: list[Tensor] = []
        handle = network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        value = loss(task, network, clean)[0].item()
        handle.remove()
    torch.manual_seed(5)
    assert torch.equal(seen[0], task.spoil(clean, None).picture)
    assert value == pytest.approx(expected, rel=0.05)


@every_kind
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 65), (2, 3), (5, 1), (7, 13), (16, 16), (17, 31), (33, 64), (65, 63)]
)
def test_any_size_and_batch(task: Restoration, count: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(height * width)
    picture = torch.rand(count, 3, height, width, generator=generator)
    for condition in (None, condition_for(task, picture, generator)):
        result = random_network(task)(picture, condition)
        assert result.shape == (count, 3, height * task.scale, width * task.scale)
        assert result.isfinite().all()


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("inpaint", "enhance")])
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_networks_scale_with_what_they_are_given(name: str, factor: float) -> None:
    """There is no bias: k times the picture, and k times the level, gives k times the result. A mask is no level."""
    task = RESTORATIONS[name]
    generator = torch.Generator().manual_seed(1)
    picture = torch.rand(1, 3, 48, 40, generator=generator)
    condition = condition_for(task, picture, generator)
    scaled = None if condition is None else condition * factor
    network = random_network(task)
    torch.testing.assert_close(
        network(picture * factor, scaled), network(picture, condition) * factor, atol=1e-5, rtol=1e-4
    )


@every_kind
@pytest.mark.parametrize("corner", [0, -1])
def test_nothing_reaches_further_than_it_says(task: Restoration, corner: int) -> None:
    """A changed pixel changes what is near, and nothing beyond the network's reach, on either side."""
    network = random_network(task)
    # a strip is wide enough to see it
    height, width = 32, 2 * network.reach
    generator = torch.Generator().manual_seed(2)
    picture = torch.rand(1, 3, height, width, generator=generator)
    condition = condition_for(task, picture, generator)
    if task.condition in ("level", "mask"):
        assert condition is not None
        condition[:, :, corner, corner] = 0
    changed = picture.clone()
    changed[:, :, corner, corner] = 1 - changed[:, :, corner, corner].round()
    difference = (network(changed, condition) - network(picture, condition)).abs().amax((0, 1, 2))
    difference = difference if corner == 0 else difference.flip(0)
    assert difference[(network.reach + 1) * task.scale :].max() == 0
    assert difference[: network.multiple * task.scale].max() > 0


@every_kind
@pytest.mark.parametrize(("height", "width"), [(40, 700), (45, 703)])
def test_tiled_equals_whole(task: Restoration, height: int, width: int) -> None:
    """Also where the network enlarges, is told a plane, and where sides are no multiples of anything."""
    network = random_network(task)
    generator = torch.Generator().manual_seed(3)
    picture = torch.rand(1, 3, height, width, generator=generator)
    condition = condition_for(task, picture, generator)
    plane = task.condition in ("level", "mask")
    told = torch.cat([picture, condition], 1) if plane and condition is not None else picture

    class Told(torch.nn.Module):
        def forward(self, planes: Tensor) -> Tensor:
            return network(planes[:, :3], planes[:, 3:] if plane else condition)

    parts = tiled(
        Told(), told[0], partial(apply_in_batches, device="cpu", batch=1),
        tile=2 * network.multiple, halo=network.reach, enlarge=task.scale, multiple=network.multiple,
    )  # fmt: skip
    whole = network(picture, condition)[0]
    assert width > 2 * network.reach, "more than one tile"
    assert (parts[:, : whole.shape[1], : whole.shape[2]] - whole).abs().max() < 1 / 255


def test_only_missing_pixels_change() -> None:
    task = RESTORATIONS["inpaint"]
    generator = torch.Generator().manual_seed(4)
    picture = torch.rand(2, 3, 40, 50, generator=generator)
    mask = condition_for(task, picture, generator)
    assert mask is not None
    result = random_network(task)(picture, mask)
    known = (mask == 0).expand_as(picture)
    assert torch.equal(result[known], picture[known])
    assert not torch.equal(result[~known], picture[~known])
    hidden = torch.where(known, picture, 9.0)
    torch.testing.assert_close(random_network(task)(hidden, mask), result)


def test_weights_of_one_task_start_another(pictures: TrainingSet, tmp_path: Path) -> None:
    """The trunk goes on from them; stem and tail, of other shapes, begin anew, and the card says so."""
    torch.manual_seed(7)
    weights = build(RESTORATIONS["denoise"], **SIZES).state_dict()
    start = str(tmp_path / "denoise.safetensors")
    save_file({name: tensor.half() for name, tensor in weights.items()}, start)
    for task, new in (("upscale-x4", {"stem.weight", "tail.weight"}), ("enhance", LIGHT), ("deblock", {"stem.weight"})):
        network, progress = train(plan(tmp_path / task, task, start=start, steps=1), pictures)
        assert set(network.state_dict()) - set(progress.started) == new
        # one step at the start of a warm-up is next to nothing
        torch.testing.assert_close(
            network.state_dict()["body.0.first.weight"], weights["body.0.first.weight"], atol=1e-3, rtol=0
        )
        card = finish(str(tmp_path / task / "m"), network, progress, pictures, data="two", training="a test")
        told = f"all but {', '.join(sorted(new))}" if len(new) <= 4 else f"{len(progress.started)} of "
        assert card.notes.startswith(f"began from given weights: {told}")


def test_weights_with_nothing_in_common_start_nothing(pictures: TrainingSet, tmp_path: Path) -> None:
    start = str(tmp_path / "other.safetensors")
    for task, tensors in (
        ("denoise", RestorationNetwork((16, 16, 16, 16), 1).state_dict()),
        ("deblock", TASKS["codec"].build(width=16, latents=32, down=1, up=1, hyper=8).state_dict()),
    ):
        save_file(tensors, start)
        assert load_file(start)
        with pytest.raises(CheckpointError, match="does not fit this network"):
            train(plan(tmp_path, task, start=start), pictures)


@pytest.mark.parametrize(
    "sizes",
    [
        {"widths": [10**9]},
        {"widths": [8] * 40},
        {"widths": []},
        {"blocks": 10**9},
        {"scale": 1000},
        {"scale": 0},
        {"condition": "moon"},
        {"widths": ["8"]},
        {"depth": 3},
    ],
    ids=str,
)
def test_a_card_that_asks_for_the_impossible_is_refused_before_anything_is_allocated(
    sizes: dict, tmp_path: Path
) -> None:
    network = random_network(RESTORATIONS["deblock"])
    card = Card("m", "deblock", "s", network.sizes | sizes, 0, "d", "l", 1, 1.0, "h", "t")
    save_model(str(tmp_path / "m"), network, card)
    with pytest.raises(ModelError, match="do not fit the sizes on their card"):
        load_model(str(tmp_path / "m.safetensors"), "deblock")


def test_what_was_done_to_the_light_is_undone() -> None:
    """The right estimate takes a spoiled picture back: exposure, contrast and cast together."""
    clean = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    exposure, contrast, pivot, gains = 0.3, 0.6, 0.4, torch.tensor([[1.2, 1.0, 0.8]])
    spoiled = spoil.colour_cast(spoil.low_contrast(spoil.low_light(clean, exposure), contrast, pivot), gains)
    squashed = [(math.log(exposure) + 1.05) / 1.6, (math.log(contrast) + 0.6) / 0.8, (pivot - 0.5) / 0.5]
    estimate = torch.atanh(torch.cat([torch.tensor([squashed]), gains.log() / 0.6], 1))
    # zeros stand for no change
    estimate[:, 0] -= math.atanh(1.05 / 1.6)
    estimate[:, 1] -= math.atanh(0.6 / 0.8)
    estimate = estimate[:, :, None, None]
    assert torch.equal(undo(clean, torch.zeros_like(estimate)).round(decimals=4), clean.round(decimals=4))
    torch.testing.assert_close(undo(spoiled, estimate), clean, atol=1e-4, rtol=0)


@given(st.integers(1, 300), st.integers(1, 300))
@settings(deadline=None, max_examples=40)
def test_a_sample_is_made_of_the_pictures_pixels(height: int, width: int) -> None:
    """From all over it: of large pictures no pixel twice, of small ones every pixel."""
    picture = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    rows, columns = (sample(picture)[0, 0] // width).unique(), (sample(picture)[0, 0] % width).unique()
    assert sample(picture).shape == (1, 1, SAMPLE, SAMPLE)
    assert (len(rows), len(columns)) == (min(height, SAMPLE), min(width, SAMPLE))
    assert rows[0] <= height / SAMPLE
    assert rows[-1] >= height - 1 - height / SAMPLE
