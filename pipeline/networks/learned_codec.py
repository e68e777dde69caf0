"""Learned compression as a step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
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
    """A network that encodes a whole picture to a stream, and decodes such a stream.

    `model` is name@hash, `weights` the whole SHA-256 of their file.
    """

    model: str
    weights: str
    encode: Callable[[Picture, Apply], tuple[bytes, Latent]]
    decode: Callable[[bytes, str, Apply], Picture]


class AutoencodeParameters(CodecChoice, Parameters):
    """Parameters of `autoencode`: a quality, or a target that it is chosen for; and the model."""


def autoencode(parameters: AutoencodeParameters, sha256: str | None = None) -> CodecNetwork:
    """Compress to a learned .drk stream and back, at a quality, size or PSNR; 16-bit pictures are rounded to 8 bits."""
    from pipeline.networks.streams import decode_with, encode_stream, load_codec, tag_of

    codec, weights = load_codec(parameters.model, sha256)

    def encode(picture: Picture, apply: Apply) -> tuple[bytes, Latent]:
        return encode_stream(codec, picture, parameters, apply)

    def decode(data: bytes, key: str, apply: Apply) -> Picture:
        # our own stream, of a picture that was within the run's limit
        return decode_with(codec, data, key, apply, pixel_limit=sys.maxsize)

    return CodecNetwork(tag_of(codec), weights, encode, decode)


network_step("autoencode", AutoencodeParameters, autoencode, extension=EXTENSION)
