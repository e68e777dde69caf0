"""Learned compression as a step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.codec.bitstream import EXTENSION
from pipeline.networks.codec_choice import CodecChoice
from pipeline.pictures.graphics import graphic
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


def told_of_graphic(picture: Picture) -> str | None:
    """Say that a picture is a graphic, which learned codecs hold badly, and what holds it; None of other pictures."""
    alpha = picture.alpha
    kind = graphic(picture.colour, picture.metadata, None if alpha is None else alpha[:, :, 0] > 0)
    exact = "webp_lossless" if picture.pixels.dtype == np.uint8 else "png"
    return f"a graphic: {kind}, which a learned codec blurs; the step {exact} keeps it exactly" if kind else None


def told_of_size(stream: int, source: int) -> str | None:
    """Say that a stream has more bytes than the file it was made of; None where it has not."""
    if stream <= source:
        return None
    return (
        f"the stream is {stream / max(1, source):.1f} times as large as its source; keep that, or ask for less quality"
    )


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
