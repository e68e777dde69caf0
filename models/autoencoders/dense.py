"""The dense autoencoder: layers that see the whole picture at once (Hinton & Salakhutdinov 2006)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from models.autoencoders import bounds
from models.autoencoders.interface import Autoencoder, calm


class DenseAutoencoder(Autoencoder):
    """A dense autoencoder of layers C H W - widths - C H W, of which the last width is the latent.

    (64, 32) is 784-64-32-64-784 for a digit. ReLU between layers, the latent linear. `dropout` is that of hidden units
    of the encoder; `tied` decoders use the transposed weights of the encoder and biases of their own.
    """

    form = "dense"

    def __init__(
        self,
        shape: Any,
        widths: Any = (64, 32),
        tied: bool = False,
        dropout: float = 0.0,
        projection: int = 0,
    ):
        widths = bounds.widths("widths", widths, 8)
        bounds.flag("tied", tied)
        bounds.number("dropout", dropout, 0, 0.9)
        super().__init__(shape, widths[-1], projection)
        layers = (prod(self.shape), *widths)
        self.tied = tied
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(layers))
        decoder = [nn.Linear(b, a) for a, b in pairwise(layers)][::-1]
        if tied:
            self.biases = nn.ParameterList(layer.bias for layer in decoder)
        else:
            self.decoder = nn.ModuleList(decoder)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)
        if not tied:
            calm(self.decoder[-1])

    def encode(self, picture: Tensor) -> Tensor:
        x = picture.flatten(1)
        for layer in self.encoder[:-1]:
            x = self.dropout(F.relu(layer(x)))
        return self.encoder[-1](x).float()

    def last_layer(self, latent: Tensor) -> Tensor:
        x = latent
        for index, layer in enumerate(self._decoder_layers()):
            x = layer(F.relu(x) if index else x)
        return x.view(-1, *self.shape)

    def _decoder_layers(self) -> list[Callable[[Tensor], Tensor]]:
        if not self.tied:
            return list(self.decoder)
        matrices = [weight for weight in self.encoder.parameters() if weight.ndim == 2][::-1]
        return [partial(F.linear, weight=w.T, bias=bias) for w, bias in zip(matrices, self.biases, strict=True)]
