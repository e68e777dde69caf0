"""How unusual a picture is as a whole: how far off its latent lies, and what an autoencoder cannot rebuild of it."""

from __future__ import annotations

import numpy as np
import torch

from models.autoencoders.interface import Autoencoder

#: pictures that go through a network at once
_BATCH = 64
#: latents that a latent is compared with
NEIGHBOURS = 5
#: least variance that a reconstruction error is divided by: a deviation of four levels of 255
FLAT = (4 / 255) ** 2


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


def reconstruction_errors(network: Autoencoder, pictures: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Compute what share of its variance a network gets wrong of each picture of N x C x H x W uint8, N float32.

    The mean squared error over the variance around the mean of each channel, both of values 0..1: 0 for a perfect
    reconstruction, 1 for the mean colour instead of the picture. Plain errors are large for whatever has contrast.
    Pictures flatter than `FLAT` are judged as if they had its variance, so that nothing is divided by zero.
    """
    shares = []
    with torch.inference_mode():
        network = network.to(device).eval()
        for start in range(0, len(pictures), _BATCH):
            given = torch.from_numpy(pictures[start : start + _BATCH]).to(device).float() / 255
            error = ((network(given) - given) ** 2).mean(dim=(1, 2, 3))
            variance = given.var(dim=(2, 3), correction=0).mean(dim=1)
            shares.append((error / variance.clamp_min(FLAT)).cpu().numpy())
    return np.concatenate(shares).astype(np.float32)
