"""The codec as it is trained: analysis, gain, hyperprior, four coding steps, inverse gain, synthesis."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from models.codec.prior import (
    CONTEXT_LIMIT,
    HYPER_LIMIT,
    QUALITIES,
    STEPS,
    HyperAnalysis,
    Prior,
    laplace_bits,
    position_classes,
    scale_of,
    step_mask,
)
from models.codec.transforms import STRIDE, Analysis, Synthesis


class CodecNetwork(nn.Module):
    """A variable-rate mean-scale hyperprior with a four-step context, integer from the hyper latent on."""

    multiple = STRIDE * 4
    #: levels are offsets in units of four table steps and have a long way to go; the linear paths feed hundreds of
    #: inputs into one sum, and full steps throw them off
    learning_rates: ClassVar[dict[str, float]] = {
        "prior.level_quality": 40.0,
        "prior.": 2.0,
        "analysis.lapped.": 0.1,
        "synthesis.lapped.": 0.1,
    }
    #: share of the hyper latents' rate that pulls on them; see `begin_step`
    hyper_pull = 1.0

    def __init__(self, width: int = 128, latents: int = 320, down: int = 3, up: int = 5, hyper: int = 64):
        super().__init__()
        self.analysis = Analysis(width, latents, down)
        self.synthesis = Synthesis(width, latents, up)
        self.hyper_analysis = HyperAnalysis(latents, 128, hyper)
        self.prior = Prior(latents, hyper)

    def begin_step(self, step: int, started: bool = False) -> None:
        """Set the price of hyper latents: nearly free at first, for before anything uses them a full one ends them.

        What `started` from trained weights uses them already and pays in full.
        """
        self.hyper_pull = 1.0 if started else min(1.0, max(0.05, step / 4000))

    def forward(self, picture: Tensor, quality: Tensor, hard: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Take pictures, N x 3 x H x W in 0..1 (multiples of 64), through the codec at N qualities, 1..64.

        Returns the reconstruction, N x 3 x H x W, and bits a pixel of latents and of hyper latents, N each: of noisy
        symbols, or of rounded ones when `hard`.
        """
        latents = self.analysis(picture)
        with torch.autocast(picture.device.type, enabled=False):
            gain = self.prior.gain(quality)[:, :, None, None]
            scaled = latents.float() * gain
            rounded, bits, hyper_bits = self._code(scaled, quality, hard)
            plane = ((quality - 1) / (QUALITIES - 1))[:, None, None, None].expand(-1, 1, *scaled.shape[-2:])
            decoded = torch.cat([rounded / gain, plane], 1)
        pixels = picture.shape[-2] * picture.shape[-1]
        return self.synthesis(decoded), bits.sum((1, 2, 3)) / pixels, hyper_bits.sum((1, 2, 3)) / pixels

    def _code(self, scaled: Tensor, quality: Tensor, hard: bool) -> tuple[Tensor, Tensor, Tensor]:
        hyper = self.hyper_analysis(scaled)
        rounded_hyper = (hyper + (hyper.round() - hyper).detach()).clamp(-HYPER_LIMIT, HYPER_LIMIT)
        hyper_bits = self.prior.hyper_bits(rounded_hyper.detach(), quality)
        if not hard:
            noisy = self.prior.hyper_bits(hyper + torch.rand_like(hyper) - 0.5, quality)
            hyper_bits = self.hyper_pull * (noisy - noisy.detach()) + hyper_bits
        features = self.prior.features(rounded_hyper, quality)
        classes = position_classes(scaled.shape[-2], scaled.shape[-1], scaled.device)
        known = torch.zeros_like(scaled)
        result, residual = torch.zeros_like(scaled), torch.zeros_like(scaled)
        levels = torch.zeros_like(scaled)
        for step in range(STEPS):
            mask = step_mask(scaled.shape[1], classes, step)[None]
            mean, level = self.prior.parameters_of(features, known, step, classes, quality)
            difference = scaled - mean
            symbols = difference.round().detach()
            result = torch.where(mask, mean + difference + (symbols - difference).detach(), result)
            residual = torch.where(mask, difference, residual)
            levels = torch.where(mask, level, levels)
            known = torch.where(mask, symbols.clamp(-CONTEXT_LIMIT, CONTEXT_LIMIT), known)
        # scales learn from what is really coded; latents and means need the noise for their gradients
        scales = scale_of(levels)
        bits = laplace_bits(residual.round().detach(), scales)
        if not hard:
            bits = laplace_bits(residual + torch.rand_like(residual) - 0.5, scales.detach()) + bits - bits.detach()
        return result, bits, hyper_bits
