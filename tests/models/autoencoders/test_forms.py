"""Every form of autoencoder: shapes, ranges, learning, independence of the batch, half precision."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.autoencoders import AUTOENCODERS, build_autoencoder
from models.autoencoders.interface import Autoencoder
from models.autoencoders.objective import Objective, parse_objective
from models.autoencoders.variational import VariationalAutoencoder
from models.autoencoders.vector_quantised import VectorQuantisedAutoencoder
from models.cards import Card
from models.registry import half_precision, load_model, save_model
from models.training.optimisers import build_optimiser
from tests.models.autoencoders.digits import digits
from tests.models.parameter_groups import parameter_groups

#: every form, and the options that change what is computed
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {"widths": [64, 16]}),
    "dense tied": ("dense", {"widths": [24], "tied": True, "dropout": 0.1}),
    "convolutional": ("convolutional", {"widths": [8, 16], "latent": 16}),
    "convolutional map": ("convolutional", {"widths": [8, 16], "latent": None, "channels": 2, "blocks": 1}),
    "convolutional tied": ("convolutional", {"widths": [8, 16], "latent": 16, "tied": True, "dropout": 0.1}),
    "recurrent": ("recurrent", {"latent": 16, "hidden": 48}),
    "recurrent lstm": ("recurrent", {"latent": 16, "hidden": 48, "cell": "lstm", "patch": 4, "dropout": 0.1}),
    "variational": ("variational", {"widths": [8, 16], "latent": 8}),
    "vector-quantised": ("vector-quantised", {"widths": [8, 16], "codes": 32, "channels": 4}),
    "adversarial": ("adversarial", {"widths": [8, 16], "latent": 8, "hidden": 32}),
}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return VARIANTS[request.param]


def built(form: str, sizes: dict[str, Any], shape: Any = (1, 16, 16), seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    return build_autoencoder(form, shape, **sizes)


def trained(
    network: Autoencoder, objective: Objective, steps: int = 100, rate: float = 1e-2, seed: int = 0
) -> list[float]:
    """Losses of so many steps on generated digits; the network is left in eval mode."""
    torch.manual_seed(seed)
    pictures = digits(500)
    optimiser = build_optimiser("muon", parameter_groups(network.train(), rate), 1e-4)
    losses = []
    for _ in range(steps):
        loss, _ = network(pictures[torch.randint(len(pictures), (16,))], objective)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    network.eval()
    return losses


@lru_cache
def learnt(variant: str) -> tuple[Autoencoder, list[float]]:
    """A variant after a hundred steps (an LSTM takes two), and its losses; not to be changed."""
    network = built(*VARIANTS[variant])
    return network, trained(network, parse_objective("bce"), steps=200 if "lstm" in variant else 100)


def test_every_form_of_the_table_is_tried() -> None:
    assert {form for form, _ in VARIANTS.values()} == set(AUTOENCODERS)


@given(st.sampled_from(list(VARIANTS)), st.integers(1, 4), st.integers(1, 37), st.integers(1, 37), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_any_shape_comes_back(variant: str, channels: int, height: int, width: int, count: int) -> None:
    form, sizes = VARIANTS[variant]
    if "patch" in sizes:
        sizes = sizes | {"patch": min(sizes["patch"], height, width)}
    network = built(form, sizes, (channels, height, width)).eval()
    picture = torch.rand(count, channels, height, width)
    with torch.no_grad():
        latent = network.encode(picture)
        back = network.decode(latent)
        features = network.features(picture)
        whole = network(picture)
    assert latent.shape == (count, network.latent_size)
    assert latent.dtype == torch.float32
    assert back.shape == picture.shape
    assert back.dtype == torch.float32
    assert back.min() >= 0
    assert back.max() <= 1
    assert torch.equal(back, whole)
    assert features is None or (features.ndim == 4 and len(features) == count)


def test_sizes_build_the_same_network_again(variant: tuple[str, dict[str, Any]]) -> None:
    network = built(*variant).eval()
    sizes = json.loads(json.dumps(network.sizes))
    again = build_autoencoder(**sizes).eval()
    again.load_state_dict(network.state_dict())
    assert again.sizes == network.sizes == sizes
    assert torch.equal(again(digits(3)), network(digits(3)))


def test_the_same_seed_gives_the_same_network_and_loss(variant: tuple[str, dict[str, Any]]) -> None:
    objective = parse_objective("mse", "noise:0.3")
    losses = []
    for network in (built(*variant), built(*variant)):
        torch.manual_seed(1)
        losses.append(network(digits(8), objective)[0])
    assert losses[0] == losses[1]


def test_a_generator_decides_all_that_is_drawn(variant: tuple[str, dict[str, Any]]) -> None:
    network = built(variant[0], variant[1] | {"projection": 4}).eval()
    objective = parse_objective("mse + contrast", "mask:0.5")
    with torch.no_grad():
        same = [network.loss(digits(8), objective, torch.Generator().manual_seed(3))[0] for _ in range(2)]
        other = network.loss(digits(8), objective, torch.Generator().manual_seed(4))[0]
    assert same[0] == same[1] != other


def test_a_latent_does_not_depend_on_its_batch(variant: tuple[str, dict[str, Any]]) -> None:
    network = built(*variant).eval()
    pictures = digits(6)
    with torch.no_grad():
        alone = torch.cat([network.encode(picture[None]) for picture in pictures])
        torch.testing.assert_close(network.encode(pictures), alone, atol=1e-5, rtol=1e-4)


def test_everything_that_shall_learn_has_a_gradient(variant: tuple[str, dict[str, Any]]) -> None:
    network = built(variant[0], variant[1] | {"projection": 4, "dropout": 0.0})
    text = "mse + mae + bce + ms_ssim + 0.01*latent + 0.01*sparsity + contrast"
    loss, figures = network(digits(16), parse_objective(text))
    loss.backward()
    assert loss.isfinite()
    assert all(figure.ndim == 0 and figure.isfinite() and not figure.requires_grad for figure in figures.values())
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_some_steps_teach_digits_and_half_precision_keeps_it(variant: str, tmp_path: Path) -> None:
    network, losses = learnt(variant)
    assert sum(losses[-10:]) < 0.75 * sum(losses[:3]) / 3 * 10

    held_out = digits(100, seed=1)
    grey = (held_out - held_out.mean(0)).pow(2).mean()
    assert (network(held_out) - held_out).pow(2).mean() < 0.85 * grey

    url = str(tmp_path / "digits.safetensors")
    card = Card("digits", "autoencoder", "", network.sizes, 0, "generated", "CC0", 100, 1.0, "CPU", "")
    save_model(url, network, card)
    loaded = load_model(url, "autoencoder")
    assert loaded.card.sizes == loaded.network.sizes == network.sizes  # type: ignore[comparison-overlap]
    with torch.no_grad():
        assert (loaded.network(held_out) - network(held_out)).abs().mean() < 2e-3
        assert torch.equal(loaded.network(held_out), half_precision(copy.deepcopy(network))(held_out))


def test_a_copy_learns_for_itself(variant: tuple[str, dict[str, Any]]) -> None:
    """As the moving averages of training do."""
    network = built(*variant)
    average = copy.deepcopy(network).eval()
    before = average(digits(4))
    trained(network, parse_objective("mse"), steps=2)
    assert torch.equal(average(digits(4)), before)
    assert not torch.equal(network(digits(4)), before)


@pytest.mark.parametrize("form", ["dense", "convolutional"])
def test_denoising_takes_noise_away(form: str) -> None:
    network = built(*VARIANTS[form])
    objective = parse_objective("mse", "noise:0.5")
    trained(network, objective)
    held_out = digits(100, seed=1)
    noisy = objective.corruption(held_out, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (network(noisy) - held_out).pow(2).mean() < 0.4 * (noisy - held_out).pow(2).mean()


def test_sparsity_makes_latents_sparse() -> None:
    plain, sparse = built("dense", {"widths": [64]}), built("dense", {"widths": [64]})
    trained(plain, parse_objective("mse"))
    trained(sparse, parse_objective("mse + 0.3*sparsity"))

    def small(network: Autoencoder) -> float:
        latent = network.encode(digits(100, seed=1)).abs()
        return (latent < 0.1 * plain.encode(digits(100, seed=1)).std()).float().mean().item()

    assert small(sparse) > 2 * small(plain)


def test_tied_weights_are_one() -> None:
    free, tied = built("dense", {"widths": [64, 16]}), built("dense", {"widths": [64, 16], "tied": True})
    assert _count(free) - _count(tied) == 256 * 64 + 64 * 16
    free, tied = (built("convolutional", {"widths": [8, 16], "tied": value}) for value in (False, True))
    assert _count(free) - _count(tied) == 1 * 8 * 16 + 8 * 16 * 16


@pytest.mark.parametrize("form", ["variational", "adversarial"])
def test_samples_look_more_like_digits_than_noise_does(form: str) -> None:
    network, _ = learnt(form)
    with torch.no_grad():
        samples = network.sample(50, torch.Generator().manual_seed(0))
        again = network.sample(50, torch.Generator().manual_seed(0))
    assert samples.shape == (50, *network.shape)
    assert torch.equal(samples, again)
    shuffled = samples.flatten(1)[:, torch.randperm(samples[0].numel(), generator=torch.Generator().manual_seed(0))]
    assert _distance(samples.flatten(1)) < 0.6 * _distance(shuffled)


@pytest.mark.parametrize("form", ["dense", "convolutional", "recurrent", "vector-quantised"])
def test_forms_without_a_prior_say_so(form: str) -> None:
    with pytest.raises(ValueError, match=f"{form} autoencoder has no prior.*variational"):
        built(*VARIANTS[form]).sample(1)


def test_beta_and_free_bits_move_the_divergence() -> None:
    nats = {}
    for beta, free in ((0.2, 0.0), (5, 0.0), (5, 1.0)):
        network = built("variational", {"widths": [8, 16], "latent": 8, "free_bits": free})
        trained(network, parse_objective(f"bce + {beta}*kl"), steps=60)
        with torch.no_grad():
            nats[beta, free] = network.loss(digits(100, seed=1), parse_objective("bce"))[1]["kl nats"].item()
    assert nats[5, 0.0] < 0.5 * nats[0.2, 0.0]
    assert nats[5, 1.0] > 1.5 * nats[5, 0.0]


def test_the_negative_bound_is_the_loss_of_all_samples() -> None:
    network = built(*VARIANTS["variational"]).eval()
    assert isinstance(network, VariationalAutoencoder)
    picture = digits(8)
    with torch.no_grad():
        bound = network.negative_bound(picture, torch.Generator().manual_seed(5))
        loss, _ = network.loss(picture, parse_objective("bce + kl"), torch.Generator().manual_seed(5))
    assert bound.shape == (8,)
    torch.testing.assert_close(bound.mean() / picture[0].numel(), loss)


def test_codes_are_all_put_to_use_and_decode_from_coarse_latents() -> None:
    network, _ = learnt("vector-quantised")
    assert isinstance(network, VectorQuantisedAutoencoder)
    held_out = digits(100, seed=1)
    with torch.no_grad():
        figures = network.loss(held_out, parse_objective("mse"))[1]
        assert figures["codes used"] > 24
        assert 8 < figures["perplexity"] <= 32
        latent = network.encode(held_out)
        indices = network.indices(held_out)
        assert indices.shape == (100, 4, 4)
        assert torch.equal(latent.view(100, 4, 16).transpose(1, 2), network.codebook[indices].view(100, 16, 4))
        scale = latent.abs().max() / 127
        assert torch.equal(network.decode((latent / scale).round() * scale), network.decode(latent))


def test_only_training_changes_the_codebook() -> None:
    network = built(*VARIANTS["vector-quantised"])
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        network.loss(digits(8), parse_objective("mse"))
    network.eval().loss(digits(8), parse_objective("mse"))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_the_discriminator_and_the_encoder_pull_against_each_other() -> None:
    """The encoder's part has no gradient for the discriminator, the discriminator's none for the encoder."""
    network = built(*VARIANTS["adversarial"])
    passage = network.passage(digits(16), torch.Generator().manual_seed(0))
    deceit, discriminator = passage.figures["deceit"], passage.figures["discriminator"]
    of_encoder = [p for n, p in network.named_parameters() if n.startswith(("encoder", "to_latent"))]
    of_discriminator = [p for n, p in network.named_parameters() if n.startswith("discriminator")]
    assert all(g is None for g in _gradients(deceit, of_discriminator))
    assert all(g is not None for g in _gradients(deceit, of_encoder))
    assert all(g is None for g in _gradients(discriminator, of_encoder))
    assert all(g is not None for g in _gradients(discriminator, of_discriminator))


def _gradients(figure: Tensor, parameters: list[Any]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(figure, parameters, retain_graph=True, allow_unused=True)


def _count(network: Autoencoder) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _distance(samples: Tensor) -> float:
    """Mean distance of N x d samples to the nearest of many digits."""
    return torch.cdist(samples, digits(1000).flatten(1)).amin(1).mean().item()
