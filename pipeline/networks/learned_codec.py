"""Learned compression as a step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from models.codec.bitstream import EXTENSION
from models.codec.codec import Latent
from models.inference import Apply
from models.registry import load_model
from pipeline.networks.codec_choice import CodecChoice
from pipeline.networks.streams import codec_of, decode_with, encode_stream, tag_of
from pipeline.pictures.picture import Picture
from pipeline.steps.registry import Parameters, network_step


@dataclass(frozen=True)
class CodecNetwork:
    """A network that leaves a stream of a whole picture, and gives back what it holds.

    `model` is name@hash, `weights` the whole SHA-256 of their file.
    """

    model: str
    weights: str
    encode: Callable[[Picture, Apply], tuple[bytes, Latent]]
    decode: Callable[[bytes, str, Apply], Picture]


class AutoencodeParameters(CodecChoice, Parameters):
    """A quality, or a target that it is chosen for; and the model."""


def autoencode(parameters: AutoencodeParameters, sha256: str | None = None) -> CodecNetwork:
    """Learned compression to a .drk stream and back, to a quality, size or PSNR; 16-bit pictures are rounded to 8."""
    model = load_model(parameters.model, "codec", sha256)
    codec = codec_of(model)

    def encode(picture: Picture, apply: Apply) -> tuple[bytes, Latent]:
        return encode_stream(codec, picture, parameters, apply)

    def decode(data: bytes, key: str, apply: Apply) -> Picture:
        # our own stream, of a picture that was within the run's limit
        return decode_with(codec, data, key, apply, pixel_limit=sys.maxsize)

    return CodecNetwork(tag_of(codec), model.card.sha256, encode, decode)


network_step("autoencode", AutoencodeParameters, autoencode, extension=EXTENSION)
