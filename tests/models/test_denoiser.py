"""The denoiser: its receptive field, any size, tiles, and what the shipped weights reach."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from skimage import data as photographs

from models.denoiser import Denoiser, denoise_picture
from models.inference import apply_in_batches
from models.registry import load_model

apply = partial(apply_in_batches, device="cpu", batch=1)


@pytest.fixture(scope="module")
def network() -> Denoiser:
    loaded = load_model("denoiser-small", "denoise").network
    assert isinstance(loaded, Denoiser)
    return loaded


def test_shipped_weights_denoise_a_photograph(network: Denoiser) -> None:
    clean = torch.from_numpy(photographs.coffee()[:256, :256].copy()).permute(2, 0, 1).float().div(255)
    generator = torch.Generator().manual_seed(3)
    noisy = (clean + 25 / 255 * torch.randn(clean.shape, generator=generator)).mul(255).round().clamp(0, 255).div(255)
    restored = apply(network, [noisy])[0].clamp(0, 1)
    before, after = ((x - clean).pow(2).mean().log10().mul(-10).item() for x in (noisy, restored))
    assert after > before + 8


def test_it_has_no_bias_so_it_scales(network: Denoiser) -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(picture) * 0.5, network(picture * 0.5), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 13), (8, 64), (65, 33)])
def test_any_size(network: Denoiser, height: int, width: int) -> None:
    picture = torch.rand(3, height, width)
    assert apply(network, [picture])[0].shape == (3, height, width)


def test_nothing_reaches_further_than_it_says(network: Denoiser) -> None:
    side = 2 * network.reach + 16
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    changed = picture.clone()
    changed[:, :, 0, 0] += 10
    with torch.no_grad():
        difference = (network(changed) - network(picture)).abs().amax(1)[0]
    assert difference[network.reach + 1 :, :].max() == 0
    assert difference[: network.reach, : network.reach].max() > 0


@pytest.mark.parametrize("size", [(300, 420), (512, 300), (305, 417)])
def test_tiled_equals_whole(network: Denoiser, size: tuple[int, int]) -> None:
    picture = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    whole = apply(network, [picture])[0]
    parts = denoise_picture(network, picture, apply, tile=64)
    assert parts.shape == whole.shape
    assert (parts - whole).abs().max() < 0.5 / 255


def test_running_out_of_memory_halves_the_batch() -> None:
    seen: list[int] = []

    class Tight(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("not so much at once")
            return x * 2

    pictures = [torch.full((3, 4, 4), float(n)) for n in range(7)]
    results = apply_in_batches(Tight(), pictures, "cpu", 8)
    assert [r[0, 0, 0].item() for r in results] == [0, 2, 4, 6, 8, 10, 12]
    assert seen[:3] == [7, 4, 2]


def test_one_picture_that_does_not_fit_is_an_error() -> None:
    class Full(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("no")

    with pytest.raises(torch.OutOfMemoryError):
        apply_in_batches(Full(), [torch.zeros(3, 4, 4)], "cpu", 4)


def test_levels_are_kept_on_a_flat_picture(network: Denoiser) -> None:
    flat = torch.full((3, 64, 64), 0.5)
    assert np.abs(apply(network, [flat])[0].numpy() - 0.5).max() < 0.06
