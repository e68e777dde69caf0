"""The recurrent autoencoder: a picture read, and written, as a sequence (Srivastava et al. 2015)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.autoencoders import bounds
from models.autoencoders.interface import Autoencoder, calm

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
#: most rows or patches of a picture
LONGEST = 1024


class RecurrentAutoencoder(Autoencoder):
    """A recurrent autoencoder: rows from the top, or with `patch` > 0 squares in reading order, as a sequence.

    Squares have `patch` pixels a side. The encoder's last output and the mean of all of them make the latent. The
    decoder begins from the latent and is told it, and the place, at every step, never what it wrote before: what it
    does in training it does in use. `cell` is one of `CELLS`; `dropout` is that of the encoder's outputs.
    """

    form = "recurrent"

    def __init__(
        self,
        shape: Any,
        latent: int = 32,
        hidden: int = 128,
        cell: str = "gru",
        patch: int = 0,
        dropout: float = 0.0,
        projection: int = 0,
    ):
        super().__init__(shape, bounds.whole("latent", latent, 1, 65536), projection)
        bounds.whole("hidden", hidden, 1, 1024)
        channels, height, width = self.shape
        bounds.whole("patch", patch, 0, max(height, width))
        self.piece = (patch, patch) if patch else (1, width)
        self.rows, self.columns = -(-height // self.piece[0]), -(-width // self.piece[1])
        length, samples = self.rows * self.columns, channels * self.piece[0] * self.piece[1]
        if length > LONGEST:
            raise ValueError(f"patch {patch}: {length} patches, and at most {LONGEST} are allowed; make them larger")
        kind = CELLS[bounds.one_of("cell", cell, tuple(CELLS))]
        self.dropout = nn.Dropout(bounds.number("dropout", dropout, 0, 0.9))
        self.encoder = kind(samples, hidden, batch_first=True)
        self.to_latent = nn.Linear(2 * hidden, latent)
        self.from_latent = nn.Linear(latent, hidden)
        self.places = nn.Parameter(torch.randn(length, hidden) * 0.1)
        self.decoder = kind(hidden, hidden, batch_first=True)
        self.to_piece = nn.Linear(hidden, samples)
        calm(self.to_piece)
        for name, parameter in [*self.encoder.named_parameters(), *self.decoder.named_parameters()]:
            if name.startswith("weight"):
                for gate in parameter.detach().split(hidden):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(parameter)
                if cell == "lstm" and name.startswith("bias_hh"):
                    # cells that begin by remembering learn over longer sequences (Jozefowicz et al. 2015)
                    parameter.detach()[hidden : 2 * hidden] = 1

    def encode(self, picture: Tensor) -> Tensor:
        outputs = self.dropout(self.encoder(self._pieces(picture))[0])
        return self.to_latent(torch.cat([outputs[:, -1], outputs.mean(1)], 1)).float()

    def last_layer(self, latent: Tensor) -> Tensor:
        told = self.from_latent(latent)
        begin = told.tanh()[None].contiguous()
        state = (begin, begin) if isinstance(self.decoder, nn.LSTM) else begin
        outputs = self.decoder(told[:, None] + self.places, state)[0]
        return self._picture(self.to_piece(outputs))

    def _pieces(self, picture: Tensor) -> Tensor:
        """Cut pictures, N x C x H x W, into a sequence, N x pieces x samples, centred on zero."""
        _, height, width = self.shape
        down, across = self.piece
        padding = (0, self.columns * across - width, 0, self.rows * down - height)
        padded = F.pad(picture, padding, mode="replicate") - 0.5
        return F.unfold(padded, self.piece, stride=self.piece).transpose(1, 2)

    def _picture(self, pieces: Tensor) -> Tensor:
        _, height, width = self.shape
        padded = (self.rows * self.piece[0], self.columns * self.piece[1])
        return F.fold(pieces.transpose(1, 2), padded, self.piece, stride=self.piece)[..., :height, :width]
