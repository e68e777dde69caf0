"""What every autoencoder can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.autoencoders import bounds
from models.autoencoders.contrast import contrast
from models.autoencoders.objective import CONTRAST, TERMS, Generator, Objective, Passage

#: makes a unit step of the last layer one of the picture where the sigmoid is steepest; else learning begins slowly
GAIN = 4


class Autoencoder(nn.Module, ABC):
    """An autoencoder: pictures N x C x H x W float32 in 0..1 to latents N x `latent_size` float32 and back.

    `shape` is (C, H, W). A form gives `encode`, `last_layer`, and `passage` if there is more to its training. No form
    has layers that mix the pictures of a batch, or statistics beside its parameters: in eval mode a picture's latent is
    its own. `projection` adds the head that the term "contrast" is taken behind (0: none); it is no part of the latent.
    """

    form: ClassVar[str]
    #: weights of the form's own terms, where the objective does not name them
    own_terms: ClassVar[dict[str, float]] = {}
    #: whether latents are trained to be standard normal, so that `sample` can draw them
    generative: ClassVar[bool] = False

    #: keyword arguments of `build_autoencoder` that build a network of the same form and sizes, filled in by it
    sizes: dict[str, Any]

    def __init__(self, shape: Any, latent_size: int, projection: int = 0):
        super().__init__()
        self.shape = bounds.picture_shape(shape)
        self.latent_size = bounds.whole("latent size", latent_size, 1, bounds.SAMPLES)
        self.projection = bounds.whole("projection", projection, 0, 1024)
        if projection:
            hidden = min(latent_size, 512)
            self.head = nn.Sequential(nn.Linear(latent_size, hidden), nn.ReLU(), nn.Linear(hidden, projection))

    @abstractmethod
    def encode(self, picture: Tensor) -> Tensor:
        """Encode pictures, N x C x H x W in 0..1, as latents, N x latent_size float32; equal pictures alike."""

    @abstractmethod
    def last_layer(self, latent: Tensor) -> Tensor:
        """Take latents, N x latent_size, through the decoder up to its last layer: N x C x H x W."""

    def decode_logits(self, latent: Tensor) -> Tensor:
        """Decode latents, N x latent_size, to N x C x H x W float32 before the sigmoid."""
        return GAIN * self.last_layer(latent).float()

    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents, N x latent_size, to pictures, N x C x H x W float32 in 0..1."""
        return self.decode_logits(latent).sigmoid()

    def features(self, picture: Tensor) -> Tensor | None:
        """Compute what the encoder sees where, N x C x H x W to N x F x h x w; None for forms without places."""
        return None

    def forward(self, picture: Tensor, objective: Objective | None = None, generator: Generator = None) -> Any:
        """Return reconstructions of pictures, N x C x H x W in 0..1; with an objective what `loss` does.

        Data-parallel training has to come this way.
        """
        if objective is None:
            return self.decode(self.encode(picture))
        return self.loss(picture, objective, generator)

    def loss(
        self, picture: Tensor, objective: Objective, generator: Generator = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the objective's weighted sum, a scalar, and its terms and the form's own figures, without gradient.

        Corruption, augmentation and posterior samples are drawn from the generator (on the picture's device; None:
        PyTorch's own), in eval mode, too. Raises ValueError when a term is asked for that the form does not have.
        """
        weights = self.own_terms | objective.weights
        passage = self.passage(objective.corruption(picture, generator), generator)
        terms = {name: self._term(name, picture, passage, generator) for name, weight in weights.items() if weight}
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return total, {name: figure.detach() for name, figure in (terms | passage.figures).items()}

    def passage(self, picture: Tensor, generator: Generator = None) -> Passage:
        """Take pictures, N x C x H x W in 0..1, through the network once, as training does."""
        latent = self.encode(picture)
        return Passage(self.decode_logits(latent), latent)

    def sample(self, count: int, generator: Generator = None) -> Tensor:
        """Draw pictures, count x C x H x W in 0..1, by decoding latents from the standard normal prior.

        The generator is one of the network's device. Raises ValueError for a form that was not trained for a prior.
        """
        if not self.generative:
            raise ValueError(
                f"a {self.form} autoencoder has no prior to draw from; a variational or adversarial one has"
            )
        device = next(self.parameters()).device
        return self.decode(torch.randn((count, self.latent_size), device=device, generator=generator))

    def _term(self, name: str, picture: Tensor, passage: Passage, generator: Generator) -> Tensor:
        if name in TERMS:
            return TERMS[name](picture, passage)
        if name == CONTRAST:
            if not self.projection:
                raise ValueError("the term contrast needs a projection head; add 'projection': 64 to the sizes")
            return contrast(picture, lambda views: self.head(self.encode(views)), generator)
        if name not in passage.terms:
            raise ValueError(f"a {self.form} autoencoder has no term {name!r}; leave it out of the loss")
        return passage.terms[name]


def calm(layer: nn.Module) -> None:
    """Make a last layer begin as gently as if it had no `GAIN`: every picture starts out nearly grey."""
    for parameter in layer.parameters():
        parameter.detach().div_(GAIN)
