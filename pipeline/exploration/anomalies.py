"""How unusual a picture is, by three scores.

They are what an autoencoder cannot rebuild, how far off its latent lies, and how unlike all others' its patches are.
Every score is fitted on some pictures and may be asked of others, so that a set can be judged by itself (exploring) or
by a set that is known to be usual (as benchmarks do).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from models.autoencoders.interface import Autoencoder

#: pictures that go through a network at once
_BATCH = 64
#: latents that a latent is compared with
NEIGHBOURS = 5
#: patches that the memory is chosen from, that it keeps, and numbers that they are compared by while it is chosen
_POOL, _KEPT, _PROJECTED = 20_000, 1000, 24


def latent_distances(seen: np.ndarray, vectors: np.ndarray | None = None) -> np.ndarray:
    """Measure how far latents, N x D, lie from the `NEIGHBOURS` nearest of those `seen`, M x D.

    Returns mean Euclidean distances, N float32. Without `vectors` those seen are asked about, each without itself. Sun
    et al. 2022, without their normalisation.
    """
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS, len(seen) if vectors is not None else len(seen) - 1)
    if count < 1:
        return np.zeros(len(seen), np.float32)
    found, _ = NearestNeighbors(n_neighbors=count).fit(seen).kneighbors(vectors)
    return found.mean(axis=1).astype(np.float32)


@dataclass(frozen=True)
class PatchMemory:
    """Patch features M x F float32 that stand for all there are, and the row of the picture each is of, M."""

    patches: np.ndarray
    owners: np.ndarray

    def scores(self, features: np.ndarray, rows: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Measure how far each picture's oddest patch is from the memory, N float32, and every patch, N x h x w.

        `features` are N x F x h x w; `rows` say which pictures of the memory these are, whose own patches then do not
        count. Distances are Euclidean.
        """
        count, _, height, width = features.shape
        maps = np.empty((count, height, width), np.float32)
        for number in range(count):
            own = None if rows is None else rows[number]
            maps[number] = self._distances(_patches(features[number : number + 1]), own).reshape(height, width)
        return maps.reshape(count, -1).max(axis=1), maps

    def _distances(self, patches: np.ndarray, own: int | None) -> np.ndarray:
        kept = self.patches if own is None else self.patches[self.owners != own]
        if not len(kept):
            return np.zeros(len(patches), np.float32)
        squared = (patches**2).sum(1)[:, None] + (kept**2).sum(1)[None] - 2 * patches @ kept.T
        return np.sqrt(np.maximum(squared.min(axis=1), 0))


def fit_patch_memory(features: np.ndarray, seed: int = 0) -> PatchMemory:
    """Choose a memory of patch features N x F x h x w as PatchCore does (Roth et al. 2022): a greedy coreset.

    Chosen is, again and again, the patch that is furthest from all chosen so far.
    """
    generator = np.random.default_rng(seed)
    patches = _patches(features)
    owners = np.repeat(np.arange(len(features)), features.shape[2] * features.shape[3])
    if len(patches) > _POOL:
        pool = np.sort(generator.choice(len(patches), _POOL, replace=False))
        patches, owners = patches[pool], owners[pool]
    if len(patches) <= _KEPT:
        return PatchMemory(patches, owners)
    matrix = generator.normal(size=(patches.shape[1], _PROJECTED)).astype(np.float32)
    small = patches @ matrix
    squares = (small**2).sum(axis=1)
    chosen = [int(generator.integers(len(small)))]
    away = np.full(len(small), np.inf, np.float32)
    for _ in range(_KEPT - 1):
        last = chosen[-1]
        away = np.minimum(away, squares - 2 * (small @ small[last]) + squares[last])
        chosen.append(int(away.argmax()))
    return PatchMemory(patches[chosen], owners[chosen])


def reconstruction_errors(network: Autoencoder, pictures: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Compute the mean squared error, N float32, of what a network makes of pictures N x C x H x W uint8.

    Both are taken as 0..1.
    """
    errors = []
    with torch.inference_mode():
        network = network.to(device).eval()
        for start in range(0, len(pictures), _BATCH):
            given = torch.from_numpy(pictures[start : start + _BATCH]).to(device).float() / 255
            errors.append(((network(given) - given) ** 2).mean(dim=(1, 2, 3)).cpu().numpy())
    return np.concatenate(errors).astype(np.float32)


def patch_features(network: Autoencoder, pictures: np.ndarray, device: str = "cpu") -> np.ndarray | None:
    """Compute the encoder's features, N x F x h x w float32, of pictures N x C x H x W uint8.

    Each is the mean of its 3 x 3. None for a network that keeps no places.
    """
    found = []
    with torch.inference_mode():
        network = network.to(device).eval()
        for start in range(0, len(pictures), _BATCH):
            features = network.features(torch.from_numpy(pictures[start : start + _BATCH]).to(device).float() / 255)
            if features is None:
                return None
            mean = torch.nn.functional.avg_pool2d(features.float(), 3, 1, 1, count_include_pad=False)
            found.append(mean.cpu().numpy())
    return np.concatenate(found)


def together(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Combine several scores of N pictures into one in 0..1: the mean of their ranks, so that units do not matter.

    Equal scores share the mean of their ranks.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(score) - 1 for score in scores]
    return (np.mean(ranks, axis=0) / max(1, len(scores[0]) - 1)).astype(np.float32)


def heat_picture(pixels: np.ndarray, heat: np.ndarray, low: float, high: float) -> np.ndarray:
    """Paint a map h x w over pixels H x W x 3 uint8, from `low` (the picture in grey) to `high` (glowing)."""
    height, width = pixels.shape[:2]
    share = np.clip((heat - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    share = cv2.resize(share, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    glow = cv2.cvtColor(cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    weight = 0.15 + 0.65 * share[:, :, None]
    return np.rint(glow * weight + grey * (1 - weight)).astype(np.uint8)


def _patches(features: np.ndarray) -> np.ndarray:
    """Rearrange features N x F x h x w to patches (N h w) x F."""
    return np.ascontiguousarray(features.transpose(0, 2, 3, 1).reshape(-1, features.shape[1]), np.float32)
