"""The compression autoencoder as it is trained: analysis, gain, rounding, inverse gain, synthesis."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from models.codec.prior import QUALITIES, SYMBOL_LIMIT, Prior
from models.codec.transforms import STRIDE, Analysis, Synthesis


class Autoencoder(nn.Module):
    """A variable-rate compression autoencoder with int8 latents.

    `tables` and `table_sizes` are the integer probability tables of the entropy coder (see `models.codec.tables`);
    they are filled when training ends and travel with the weights: every machine decodes with the same integers.
    `reach` is how many pixels around a latent or a pixel its value may depend on, rounded up to whole latents.
    """

    multiple = STRIDE
    reach = 64
    #: the linear paths start near their goal and feed hundreds of inputs into one sum: full steps throw them off
    learning_rates: ClassVar[dict[str, float]] = {"prior.": 4.0, "analysis.lapped.": 0.1, "synthesis.lapped.": 0.1}
    tables: Tensor
    table_sizes: Tensor
    table_lows: Tensor

    def __init__(self, width: int = 128, latents: int = 192, down: int = 3, up: int = 5):
        super().__init__()
        self.analysis = Analysis(width, latents, down)
        self.synthesis = Synthesis(width, latents, up)
        self.prior = Prior(latents)
        self.register_buffer("tables", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("table_sizes", torch.zeros(QUALITIES, latents, dtype=torch.int32))
        self.register_buffer("table_lows", torch.zeros(QUALITIES, latents, dtype=torch.int32))

    def forward(self, picture: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Training pass. N x 3 x H x W in 0..1 and N qualities to (reconstruction, bits per pixel, N values)."""
        latents = self.analysis(picture)
        # rates are differences of small numbers: never in half precision
        with torch.autocast(picture.device.type, enabled=False):
            gain = self.prior.gain(quality)
            # a true clamp: where it bites, the gradient reaches the gain through the decoder and lowers it
            scaled = (latents.float() * gain[:, :, None, None]).clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
            noisy = scaled + torch.rand_like(scaled) - 0.5
            rounded = scaled + (scaled.round() - scaled).detach()
            bits = self.prior.bits(noisy, gain).sum((1, 2, 3)) / (picture.shape[-2] * picture.shape[-1])
        return self.synthesis(rounded / gain[:, :, None, None]), bits

    def symbols(self, picture: Tensor, quality: Tensor) -> Tensor:
        """N x 3 x H x W in 0..1 to whole-numbered symbols in -127..127, N x M x H/16 x W/16."""
        gain = self.prior.gain(quality)
        return quantise(self.analysis(picture), gain)

    def picture(self, symbols: Tensor, quality: Tensor) -> Tensor:
        """The mirror image of `symbols`: symbols to a picture in 0..1."""
        gain = self.prior.gain(quality)
        return self.synthesis(symbols / gain[:, :, None, None]).clamp(0, 1)


def quantise(latents: Tensor, gain: Tensor) -> Tensor:
    """Latents N x M x h x w under gains N x M to whole-numbered symbols in -127..127."""
    return (latents * gain[:, :, None, None]).round().clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
