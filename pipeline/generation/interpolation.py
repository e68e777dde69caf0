"""Where in a latent space pictures lie, draws from there, and ways through it. Latents are N x d float32 arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.autoencoders.interface import Autoencoder

_BATCH = 64
#: numbers that the latents of a source may have together
MOST_NUMBERS = 1 << 27
#: axes that a mixture is fitted over at most, and the pictures that each of them takes
_MOST_AXES, _PICTURES_AN_AXIS = 64, 20


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of every number of a latent, d each."""

    mean: np.ndarray
    deviation: np.ndarray


def encode_all(network: Autoencoder, pictures: Tensor, device: str) -> np.ndarray:
    """Encode pictures N x C x H x W, uint8 or float32 in 0..1, as latents, N x d float32."""
    encode = _in_batches(network.encode, device)
    return encode(pictures).numpy()


def decode_all(network: Autoencoder, latents: np.ndarray, device: str) -> np.ndarray:
    """Decode latents, N x d, to pictures, N x H x W x C uint8."""
    decode = _in_batches(lambda batch: levels(network.decode(batch)), device)
    return decode(torch.from_numpy(latents.astype(np.float32))).numpy()


def levels(pictures: Tensor) -> Tensor:
    """Convert pictures N x C x H x W in 0..1 to N x H x W x C uint8."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def spread_of(latents: np.ndarray) -> Spread:
    """Measure mean and standard deviation of every number of latents, N x d."""
    return Spread(latents.mean(0), latents.std(0))


def mixture_draws(latents: np.ndarray, count: int, components: int, seed: int) -> tuple[np.ndarray, int]:
    """Draw latents from a Gaussian mixture fitted to others; also return how many components it got.

    As Ghosh et al. 2020 do for autoencoders without a prior ("From variational to deterministic autoencoders"), with
    full covariances; over the first principal axes where there are too few latents for all, and with fewer components
    where each would get fewer than ten latents an axis. What the axes leave out is noise of its own variance.
    """
    # slow to import
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    if not np.ptp(latents, axis=0).any():
        return np.repeat(latents[:1], count, 0), 1
    axes = max(1, min(latents.shape[1], _MOST_AXES, len(latents) // _PICTURES_AN_AXIS))
    kept = max(1, min(components, len(latents) // (10 * axes)))
    main = PCA(axes, random_state=seed).fit(latents)
    reduced = main.transform(latents) / np.sqrt(main.explained_variance_ + 1e-12)
    mixture = GaussianMixture(kept, reg_covar=1e-3, random_state=seed).fit(reduced)
    generator = np.random.default_rng(seed)
    means, factors = mixture.means_, np.linalg.cholesky(mixture.covariances_)
    which = generator.choice(kept, count, p=mixture.weights_)
    drawn = means[which] + np.einsum("nij,nj->ni", factors[which], generator.standard_normal((count, axes)))
    rest = (latents - main.inverse_transform(main.transform(latents))).std(0)
    whole = main.inverse_transform(drawn * np.sqrt(main.explained_variance_ + 1e-12))
    return (whole + rest * generator.standard_normal((count, latents.shape[1]))).astype(np.float32), kept


def straight(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """Interpolate `count` latents evenly along the line between two, both ends among them."""
    part = np.linspace(0, 1, count)[:, None]
    return ((1 - part) * one + part * other).astype(np.float32)


def great_circle(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """Interpolate `count` latents along the arc around the origin between two (Shoemake 1985), lengths changing evenly.

    Under a Gaussian prior most pictures lie on a sphere, which a line would leave (White 2016). Where there is no one
    arc, between opposite or zero ends, it is the line.
    """
    lengths = np.linalg.norm(one), np.linalg.norm(other)
    if min(lengths) == 0:
        return straight(one, other, count)
    cosine = float(np.clip(one @ other / (lengths[0] * lengths[1]), -1, 1))
    angle = np.arccos(cosine)
    if np.sin(angle) < 1e-4:
        return straight(one, other, count)
    part = np.linspace(0, 1, count)[:, None]
    arc = (np.sin((1 - part) * angle) * one / lengths[0] + np.sin(part * angle) * other / lengths[1]) / np.sin(angle)
    return (arc * ((1 - part) * lengths[0] + part * lengths[1])).astype(np.float32)


def _in_batches(function: Callable[[Tensor], Tensor], device: str) -> Callable[[Tensor], Tensor]:
    @torch.no_grad()
    def whole(values: Tensor) -> Tensor:
        parts = []
        for part in values.split(_BATCH):
            batch = part.float() / 255 if part.dtype == torch.uint8 else part
            parts.append(function(batch.to(device)).cpu())
        return torch.cat(parts)

    return whole
