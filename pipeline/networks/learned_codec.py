"""Learned compression as a step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from models.codec.bitstream import EXTENSION
from pipeline.networks.codec_choice import CodecChoice
from pipeline.pictures.picture import Picture
from pipeline.steps.registry import Parameters, network_step

if TYPE_CHECKING:
    from models.codec.codec import Latent
    from models.inference import Apply


@dataclass(frozen=True)
class CodecNetwork:
    """A network that leaves a stream of a whole picture, and gives back what it holds. `model` is name@hash."""

    model: str
    encode: Callable[[Picture, Apply], tuple[bytes, Latent]]
    decode: Callable[[bytes, str, Apply], Picture]


class AutoencodeParameters(CodecChoice, Parameters):
    """A quality, or a target that it is chosen for; and the model."""


@lru_cache(maxsize=16)
def autoencode(parameters: AutoencodeParameters) -> CodecNetwork:
    """Learned compression to a .drk stream and back, to a quality, size or PSNR; 16-bit pictures are rounded to 8."""
    from pipeline.networks.streams import decode_with, encode_stream, open_codec, tag_of

    codec = open_codec(parameters.model)

    def encode(picture: Picture, apply: Apply) -> tuple[bytes, Latent]:
        return encode_stream(codec, picture, parameters, apply)

    def decode(data: bytes, key: str, apply: Apply) -> Picture:
        # our own stream, of a picture that was within the run's limit
        return decode_with(codec, data, key, apply, pixel_limit=sys.maxsize)

    return CodecNetwork(tag_of(codec), encode, decode)


network_step("autoencode", AutoencodeParameters, autoencode, extension=EXTENSION)
