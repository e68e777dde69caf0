"""The vector-quantised autoencoder (van den Oord et al. 2017): every place of its map is a vector of a codebook."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor, nn

from models.autoencoders import bounds
from models.autoencoders.convolutional import Decoder, Encoder, map_sizes
from models.autoencoders.interface import GAIN, Autoencoder
from models.autoencoders.objective import Generator, Passage

#: what an encoding away from its code costs beside a code away from its encodings
COMMITMENT = 0.25
#: how fast the record of a code's use forgets, and the part of a fair share below which a code begins anew
FORGETTING, DEAD = 0.98, 0.03


class VectorQuantisedAutoencoder(Autoencoder):
    """A convolutional autoencoder whose latent is a map of h x w codes out of `codes`, vectors of `channels` numbers.

    `encode` gives the codes' vectors, channels h w numbers; `decode` takes each vector for the nearest code, so that a
    latent stored coarsely decodes as the exact one. Codes follow the gradient of the "codebook" term; one that is
    hardly used begins anew from an encoding of the batch, as all do at first (Jukebox, Dhariwal et al. 2020). `dropout`
    is that of whole feature maps.
    """

    form = "vector-quantised"
    own_terms: ClassVar = {"codebook": 1.0}

    def __init__(
        self,
        shape: Any,
        widths: Any = (32, 64),
        codes: int = 256,
        channels: int = 8,
        blocks: int = 0,
        dropout: float = 0.0,
        projection: int = 0,
    ):
        features, height, width = map_sizes(shape, widths, blocks)
        bounds.whole("codes", codes, 2, 16384)
        bounds.whole("channels", channels, 1, 512)
        super().__init__(shape, channels * height * width, projection)
        self.map = (channels, height, width)
        self.encoder = Encoder(self.shape, widths, blocks, bounds.number("dropout", dropout, 0, 0.9))
        self.to_code = nn.Conv2d(features, channels, 1)
        self.from_code = nn.Conv2d(channels, features, 1)
        self.decoder = Decoder(self.shape, widths, blocks)
        self.codebook = nn.Parameter(torch.randn(codes, channels))
        # fair share = 1; a parameter without gradient, so that moving averages of the network hold it, too
        self.usage = nn.Parameter(torch.zeros(codes), requires_grad=False)

    def features(self, picture: Tensor) -> Tensor:
        return self.encoder(picture).float()

    def encode(self, picture: Tensor) -> Tensor:
        return self._laid_out(self.codebook[self.indices(picture)])

    def indices(self, picture: Tensor) -> Tensor:
        """Find the number of every place's code, N x h x w int64, for pictures N x C x H x W in 0..1."""
        return self._nearest(self._encodings(picture))

    def last_layer(self, latent: Tensor) -> Tensor:
        vectors = latent.view(-1, *self.map).permute(0, 2, 3, 1)
        return self._decode_codes(self._laid_out(self.codebook[self._nearest(vectors)]))

    def passage(self, picture: Tensor, generator: Generator = None) -> Passage:
        encodings = self._encodings(picture)
        if self.training and torch.is_grad_enabled():
            self._restart(encodings.detach().flatten(0, 2), generator)
        chosen = self._nearest(encodings)
        vectors = self.codebook[chosen]
        shares = torch.bincount(chosen.flatten(), minlength=len(self.codebook)) / chosen.numel()
        if self.training and torch.is_grad_enabled():
            self.usage.lerp_(shares * len(shares), 1 - FORGETTING)
        term = F.mse_loss(vectors, encodings.detach()) + COMMITMENT * F.mse_loss(encodings, vectors.detach())
        figures = {"perplexity": torch.special.entr(shares).sum().exp(), "codes used": (shares > 0).float().sum()}
        # the decoder's gradient passes to the encoder as if nothing had been rounded
        latent = self._laid_out(encodings + (vectors - encodings).detach())
        return Passage(GAIN * self._decode_codes(latent).float(), latent, {"codebook": term}, figures)

    def _encodings(self, picture: Tensor) -> Tensor:
        """Encode pictures as vectors before quantisation, N x h x w x channels float32."""
        return self.to_code(self.encoder(picture)).float().permute(0, 2, 3, 1)

    def _laid_out(self, vectors: Tensor) -> Tensor:
        """Lay vectors, N x h x w x channels, out as latents, N x latent_size."""
        return vectors.permute(0, 3, 1, 2).flatten(1)

    def _decode_codes(self, latent: Tensor) -> Tensor:
        return self.decoder(self.from_code(latent.view(-1, *self.map)))

    @torch.no_grad()
    def _nearest(self, vectors: Tensor) -> Tensor:
        """Find the number of the code nearest to each vector, N x h x w x channels to N x h x w."""
        with torch.autocast(vectors.device.type, enabled=False):
            flat = vectors.flatten(0, 2)
            distance = self.codebook.pow(2).sum(1) - 2 * flat @ self.codebook.T
        return distance.argmin(1).view(vectors.shape[:3])

    @torch.no_grad()
    def _restart(self, encodings: Tensor, generator: Generator) -> None:
        """Replace hardly used codes by encodings, M x channels, drawn at random, and give them a full share of use."""
        drawn = torch.randint(len(encodings), self.usage.shape, device=encodings.device, generator=generator)
        dead = self.usage < DEAD
        self.codebook.copy_(torch.where(dead[:, None], encodings[drawn], self.codebook))
        self.usage.copy_(torch.where(dead, 1.0, self.usage))
        if distributed.is_available() and distributed.is_initialized():
            # every process draws from its own batch
            distributed.broadcast(self.codebook.data, 0)
            distributed.broadcast(self.usage.data, 0)
