"""Objectives: their text, their terms against formulae, corruption, contrast; sizes that must be refused."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.autoencoders import AUTOENCODERS, build_autoencoder
from models.autoencoders.contrast import augmented, contrast
from models.autoencoders.objective import OF_FORMS, TERMS, Corruption, parse_corruption, parse_objective
from models.autoencoders.similarity import ms_ssim
from models.training.optimisers import build_optimiser
from pipeline.pictures import metrics
from tests.models.autoencoders.digits import digits
from tests.models.parameter_groups import parameter_groups


@given(st.dictionaries(st.sampled_from([*TERMS, *OF_FORMS, "contrast"]), st.floats(1e-9, 1e6), min_size=1))
def test_any_weights_can_be_written(weights: dict[str, float]) -> None:
    assert parse_objective(" + ".join(f"{weight!r}*{name}" for name, weight in weights.items())).weights == weights
    coarse = parse_objective("+".join(f" {weight:.3e} * {name}" for name, weight in weights.items()))
    assert coarse.weights == pytest.approx(weights, rel=1e-3)


def test_a_weight_of_one_need_not_be_said() -> None:
    assert parse_objective("mse+0.1 * ms_ssim").weights == {"mse": 1.0, "ms_ssim": 0.1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is not a term"),
        ("mse +", "'' is not a term"),
        ("-1*mse", "'-1.mse' is not a term"),
        ("mse + huber", "there is no term 'huber'; there are mse, mae, bce"),
        ("mse + 2*mse", "mse is there twice"),
        ("1e7*mse", "the weight of mse must be a number from 0 to 1e6"),
        ("1.2.3*mse", "the weight of mse must be a number"),
        ("1e999*mse", "the weight of mse must be a number"),
        ("0*mse", "every weight is zero"),
    ],
)
def test_a_wrong_objective_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_objective(text)


@given(st.text("mse+*0.1e: noik\0é", max_size=30), st.sampled_from([parse_objective, parse_corruption]))
def test_any_text_is_understood_or_refused(text: str, parse: Callable[[str], Any]) -> None:
    with contextlib.suppress(ValueError):
        assert parse(text)


def test_terms_are_the_literatures_sums_over_the_samples() -> None:
    torch.manual_seed(0)
    network = build_autoencoder("convolutional", (1, 16, 16), widths=[4, 8], latent=6).eval()
    picture = digits(4)
    names = ("mse", "mae", "bce", "latent", "sparsity")
    with torch.no_grad():
        total, figures = network.loss(picture, parse_objective("mse + 2*mae + bce + 0.5*latent + 0.25*sparsity"))
        back, latent = network(picture), network.encode(picture)
    entropy = -(picture * back.log() + (1 - picture) * (1 - back).log())
    sums = ((back - picture).square(), (back - picture).abs(), entropy, latent.square(), latent.abs())
    for name, value in zip(names, sums, strict=True):
        torch.testing.assert_close(figures[name], value.sum() / 4 / 256)
    weighted = zip((1, 2, 1, 0.5, 0.25), names, strict=True)
    torch.testing.assert_close(total, sum(weight * figures[name] for weight, name in weighted))


@pytest.mark.parametrize(
    ("form", "term"), [("dense", "kl"), ("variational", "codebook"), ("convolutional", "contrast")]
)
def test_a_term_that_a_form_lacks_is_told(form: str, term: str) -> None:
    network = build_autoencoder(form, (1, 8, 8))
    with pytest.raises(ValueError, match=term):
        network(torch.rand(2, 1, 8, 8), parse_objective(f"mse + {term}"))


def test_a_forms_own_term_can_be_weighed_or_left_out() -> None:
    network = build_autoencoder("variational", (1, 16, 16), widths=[4], latent=4).eval()

    def loss(text: str) -> float:
        return network.loss(digits(4), parse_objective(text), torch.Generator().manual_seed(0))[0].item()

    kl = loss("kl")
    assert loss("bce") == pytest.approx(loss("bce + kl"))
    assert loss("bce + 3*kl") == pytest.approx(loss("bce + 0*kl") + 3 * kl, rel=1e-4)


@given(st.integers(1, 100), st.integers(1, 100), st.sampled_from([1, 3]), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_ms_ssim_is_that_of_the_metrics(height: int, width: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] % 256 + np.zeros(channels)
    a = smooth.astype(np.uint8)
    b = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
    x, y = (torch.from_numpy(p).permute(2, 0, 1)[None].float() / 255 for p in (a, b))
    assert ms_ssim(x, y).item() == pytest.approx(metrics.ms_ssim(a, b), abs=2e-3)
    assert ms_ssim(x, x).item() == pytest.approx(1, abs=1e-4)


def test_ms_ssim_can_be_learnt_from() -> None:
    wanted = digits(2, 28)
    pixels = torch.full_like(wanted, 0.5).requires_grad_()
    before = ms_ssim(pixels, wanted).mean().item()
    optimiser = torch.optim.Adam([pixels], 0.05)
    for _ in range(40):
        optimiser.zero_grad()
        (1 - ms_ssim(pixels.sigmoid(), wanted).mean()).backward()
        optimiser.step()
    assert ms_ssim(pixels.sigmoid(), wanted).mean() > max(0.9, before)


def test_noise_has_its_sigma_and_masks_their_share() -> None:
    grey = torch.full((200, 1, 28, 28), 0.5)
    generator = torch.Generator().manual_seed(0)
    assert (parse_corruption("noise:0.1")(grey, generator) - 0.5).std() == pytest.approx(0.1, rel=0.02)
    masked = parse_corruption("mask:0.3")(grey, generator)
    assert (masked == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    squares = masked.view(200, 7, 4, 7, 4)
    assert torch.equal(squares, squares[:, :, :1, :, :1].expand_as(squares))
    assert torch.equal(Corruption()(grey), grey)


@given(st.sampled_from(["noise", "mask"]), st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None, max_examples=30)
def test_what_is_spoiled_or_augmented_stays_a_picture(kind: str, channels: int, height: int, width: int) -> None:
    picture = torch.rand(3, channels, height, width)
    for changed in (Corruption(kind, 0.5)(picture), augmented(picture)):
        assert changed.shape == picture.shape
        assert changed.min() >= 0
        assert changed.max() <= 1


@pytest.mark.parametrize("text", ["noise", "noise:", "noise:nan", "noise:-1", "noise:3", "mask:1", "blur:1", "mask:0"])
def test_a_wrong_corruption_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_corruption(text)


def test_contrast_of_one_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="batches of 2 or more"):
        contrast(torch.rand(1, 3, 8, 8), lambda views: views.flatten(1))


def test_contrast_is_one_at_chance_and_low_where_views_agree() -> None:
    pictures = torch.rand(16, 3, 8, 8)
    assert contrast(pictures, lambda views: torch.ones(len(views), 4)).item() == pytest.approx(1, abs=1e-5)
    who = torch.eye(16).repeat(2, 1)
    assert contrast(pictures, lambda views: who) < 0.2
    strangers = torch.cat([who[:16], who[:16].roll(1, 0)])
    assert contrast(pictures, lambda views: strangers) > 1.5


def test_contrast_teaches_to_tell_textures_apart() -> None:
    torch.manual_seed(0)
    network = build_autoencoder("convolutional", (3, 16, 16), widths=[8, 16], latent=16, projection=16)
    optimiser = build_optimiser("muon", parameter_groups(network, 1e-2), 0)
    waves = torch.rand(200, 3, 2) @ (torch.stack([torch.arange(256) % 16, torch.arange(256) // 16]) / 2)
    pictures = waves.sin().view(200, 3, 16, 16) / 2 + 0.5
    objective, losses = parse_objective("contrast"), []
    for _ in range(40):
        loss, _ = network(pictures[torch.randint(200, (16,))], objective)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:3]) / 3 * 10


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("form", {"form": "quantum"}),
    ("form", {"form": ["dense"]}),
    ("shape", {"shape": [1, 28]}),
    ("shape", {"shape": "abc"}),
    ("shape", {"shape": [1, 0, 28]}),
    ("shape", {"shape": [1, 28.0, 28]}),
    ("shape", {"shape": [True, 28, 28]}),
    ("shape", {"shape": [64, 512, 512]}),
    ("widths", {"widths": []}),
    ("widths", {"widths": [64] * 9}),
    ("widths", {"widths": {"64": 1}}),
    ("widths", {"widths": [10**9]}),
    ("parameters", {"shape": [3, 256, 256], "widths": [4096]}),
    ("dropout", {"dropout": math.nan}),
    ("dropout", {"dropout": "0.5"}),
    ("tied", {"tied": 1}),
    ("projection", {"projection": -1}),
    ("latnet", {"latnet": 32}),
    ("widths", {"form": "convolutional", "widths": [2]}),
    ("blocks", {"form": "convolutional", "blocks": 1000}),
    ("channels", {"form": "convolutional", "channels": 4}),
    ("latent", {"form": "convolutional", "latent": 0}),
    ("latent", {"form": "variational", "latent": None}),
    ("free_bits", {"form": "variational", "free_bits": -1}),
    ("parameters", {"form": "convolutional", "widths": [512], "shape": [3, 256, 256], "latent": 65536}),
    ("cell", {"form": "recurrent", "cell": "rnn"}),
    ("hidden", {"form": "recurrent", "hidden": 10**6}),
    ("patch", {"form": "recurrent", "shape": [1, 200, 200], "patch": 2}),
    ("codes", {"form": "vector-quantised", "codes": 1}),
    ("hidden", {"form": "adversarial", "hidden": None}),
]


@pytest.mark.parametrize(("told", "sizes"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_sizes_are_told_before_anything_is_allocated(told: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=told):
        build_autoencoder(**({"form": "dense", "shape": [1, 28, 28]} | sizes))


_ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers(-1, 99), max_size=4)
)


@given(
    st.sampled_from(list(AUTOENCODERS)),
    st.dictionaries(
        st.sampled_from(["widths", "latent", "channels", "blocks", "tied", "hidden", "cell", "codes", "patch"]), _ODD
    ),
)
@settings(deadline=None, max_examples=100)
def test_whatever_a_card_says_is_built_or_refused(form: str, sizes: dict[str, Any]) -> None:
    try:
        network = build_autoencoder(form, [1, 16, 16], **sizes)
    except ValueError:
        return
    assert network.sizes["form"] == form
