"""Networks as steps: blind denoising and learned compression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import torch
from pydantic import Field

from models.codec.bitstream import EXTENSION
from models.codec.codec import Codec, Latent, compress, decompress
from models.codec.network import Autoencoder
from models.denoiser import Denoiser, denoise_picture
from models.inference import Apply
from models.registry import ModelError, load_model
from pipeline.picture import to_8bit
from pipeline.steps.registry import Parameters, network_step


@dataclass(frozen=True)
class PixelNetwork:
    """A network that gives pixels for pixels: H x W x 1|3 uint8 or uint16, same dtype out. `model` is name@hash."""

    model: str
    develop: Callable[[np.ndarray, Apply], np.ndarray]


@dataclass(frozen=True)
class CodecNetwork:
    """A network that leaves a stream: `encode(pixels, apply, bit_depth)` and `decode(stream, apply)`, 8 bit out."""

    model: str
    encode: Callable[[np.ndarray, Apply, int], tuple[bytes, Latent]]
    decode: Callable[[bytes, Apply], np.ndarray]


class DenoiseParameters(Parameters):
    strength: float = Field(1.0, ge=0, le=1, description="1 takes all estimated noise away, 0 none")
    model: str = Field("denoiser-small", description="name of a shipped model, or URL of a safetensors file")


class AutoencodeParameters(Parameters):
    quality: int = Field(24, ge=1, le=64, description="1 smallest file, 64 best picture")
    model: str = Field("autoencoder-small", description="name of a shipped model, or URL of a safetensors file")


@lru_cache(maxsize=16)
def denoise(parameters: DenoiseParameters) -> PixelNetwork:
    """Blind denoising by a bias-free U-Net; 16-bit pictures stay 16 bit."""
    model = load_model(parameters.model, "denoise")
    network = cast(Denoiser, model.network)

    def develop(pixels: np.ndarray, apply: Apply) -> np.ndarray:
        white = np.iinfo(pixels.dtype).max
        grey = pixels.shape[2] == 1

        def before(window: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(window.astype(np.float32) / white).expand(3, -1, -1)

        def after(clean: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
            clean = torch.lerp(noisy, clean, parameters.strength)
            clean = clean.mean(0, keepdim=True) if grey else clean
            levels = (clean.clamp(0, 1) * white).round()
            return levels.to(torch.uint8 if pixels.dtype == np.uint8 else torch.uint16)

        clean = denoise_picture(network, pixels.transpose(2, 0, 1), apply, before=before, after=after)
        return np.ascontiguousarray(clean.permute(1, 2, 0).numpy())

    return PixelNetwork(model.tag, develop)


@lru_cache(maxsize=16)
def autoencode(parameters: AutoencodeParameters) -> CodecNetwork:
    """Learned compression to a .drk stream and back; 16-bit pictures are rounded to 8 bit."""
    model = load_model(parameters.model, "autoencode")
    network = cast(Autoencoder, model.network)
    if not len(network.tables):
        raise ModelError(f"the model {parameters.model} has no probability tables: its training was not finished")
    codec = Codec(network, bytes.fromhex(model.card.sha256[:16]))

    def encode(pixels: np.ndarray, apply: Apply, bit_depth: int) -> tuple[bytes, Latent]:
        return compress(codec, to_8bit(pixels), parameters.quality, apply, bit_depth)

    def decode(data: bytes, apply: Apply) -> np.ndarray:
        return decompress(codec, data, apply)

    return CodecNetwork(model.tag, encode, decode)


network_step("denoise", DenoiseParameters, denoise)
network_step("autoencode", AutoencodeParameters, autoencode, extension=EXTENSION)
