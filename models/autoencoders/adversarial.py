"""The adversarial autoencoder (Makhzani et al. 2016): a discriminator makes latents those of a normal prior."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from models.autoencoders import bounds
from models.autoencoders.convolutional import ConvolutionalAutoencoder
from models.autoencoders.objective import Generator, Passage


class AdversarialAutoencoder(ConvolutionalAutoencoder):
    """A convolutional autoencoder, and a discriminator that tells latents from samples of the standard normal prior.

    The discriminator has two layers of `hidden` units. Both learn in one step of one optimiser: the term "adversary" is
    the encoder's loss under the discriminator's present weights plus the discriminator's loss on the encoder's present
    latents, neither with a gradient for the other.
    """

    form = "adversarial"
    own_terms: ClassVar = {"adversary": 0.01}
    generative = True

    def __init__(
        self,
        shape: Any,
        widths: Any = (32, 64),
        latent: int = 16,
        blocks: int = 0,
        hidden: int = 128,
        dropout: float = 0.0,
        projection: int = 0,
    ):
        bounds.whole("latent", latent, 1, 65536)
        super().__init__(shape, widths, latent, None, blocks, False, dropout, projection)
        bounds.whole("hidden", hidden, 1, bounds.WIDTH)
        self.discriminator = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def passage(self, picture: Tensor, generator: Generator = None) -> Passage:
        latent = self.encode(picture)
        prior = torch.randn(latent.shape, device=latent.device, generator=generator)
        fixed = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        deceit = F.softplus(-functional_call(self.discriminator, fixed, (latent,))).mean()
        found = F.softplus(self.discriminator(latent.detach())).mean()
        missed = F.softplus(-self.discriminator(prior)).mean()
        figures = {"deceit": deceit, "discriminator": (found + missed) / 2}
        return Passage(self.decode_logits(latent), latent, {"adversary": deceit + found + missed}, figures)
