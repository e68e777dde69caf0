"""The variational autoencoder (Kingma & Welling 2014), with the weight beta of Higgins et al. (2017) and free bits."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.autoencoders import bounds
from models.autoencoders.convolutional import ConvolutionalAutoencoder
from models.autoencoders.objective import Generator, Passage


class VariationalAutoencoder(ConvolutionalAutoencoder):
    """A convolutional autoencoder whose encoder gives a Gaussian; the latent that `encode` gives is its mean.

    Beta is the objective's weight of "kl", 1 where it is not named; "bce + kl" is the negative evidence bound per
    sample. Below `free_bits` nats a dimension, in the mean of the batch, divergence costs nothing (Kingma et al. 2016).
    """

    form = "variational"
    own_terms: ClassVar = {"kl": 1.0}
    generative = True

    def __init__(
        self,
        shape: Any,
        widths: Any = (32, 64),
        latent: int = 32,
        blocks: int = 0,
        free_bits: float = 0.0,
        dropout: float = 0.0,
        projection: int = 0,
    ):
        bounds.whole("latent", latent, 1, 65536)
        super().__init__(shape, widths, latent, None, blocks, False, dropout, projection)
        self.free_bits = bounds.number("free_bits", free_bits, 0, 100)
        self.to_log_variance = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(self.map), latent))

    def posterior(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pictures, N x C x H x W, as mean and log variance, N x latent_size float32 both."""
        features = self.encoder(picture)
        # bounded, so that no step of training can overflow the exponential
        return self.to_latent(features).float(), 10 * (self.to_log_variance(features).float() / 10).tanh()

    def passage(self, picture: Tensor, generator: Generator = None) -> Passage:
        mean, log_variance = self.posterior(picture)
        latent = _drawn(mean, log_variance, generator)
        divergence = _divergence(mean, log_variance).mean(0)
        kl = divergence.clamp_min(self.free_bits).sum() / picture[0].numel()
        used = (divergence > 0.01).float().sum()
        figures = {"kl nats": divergence.sum(), "dimensions used": used}
        return Passage(self.decode_logits(latent), latent, {"kl": kl}, figures)

    def negative_bound(self, picture: Tensor, generator: Generator = None) -> Tensor:
        """Estimate minus the evidence lower bound of pictures N x C x H x W in 0..1, N values in nats.

        One sample is drawn for each. The likelihood is Bernoulli: exact for pictures of zeros and ones, the usual
        stand-in for what lies between.
        """
        mean, log_variance = self.posterior(picture)
        logits = self.decode_logits(_drawn(mean, log_variance, generator))
        error = F.binary_cross_entropy_with_logits(logits, picture, reduction="none").sum((1, 2, 3))
        return error + _divergence(mean, log_variance).sum(1)


def _drawn(mean: Tensor, log_variance: Tensor, generator: Generator) -> Tensor:
    noise = torch.randn(mean.shape, device=mean.device, generator=generator)
    return mean + (log_variance / 2).exp() * noise


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the divergence from the standard normal distribution, N x d in nats."""
    return (mean.pow(2) + log_variance.exp() - 1 - log_variance) / 2
