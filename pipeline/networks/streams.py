"""`.drk` streams and pictures: which model reads a stream, and what of a picture a stream keeps.

A stream keeps the colours (with loss, 8 bits), alpha rounded to 8 bits, the bit depth of the original, and its ICC
profile and EXIF block, which holds XMP, IPTC and resolution too. Blocks over 4 MiB, the format's limit, are left out;
the picture is compressed all the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from models.cards import list_cards
from models.codec.bitstream import EXTENSION, HASH_BYTES, MAGIC, PIXEL_LIMIT, VERSION, Header, read_header
from models.codec.codec import Codec, Latent, Still, compress, decompress
from models.codec.frozen import FrozenCodec
from models.codec.rate_control import compress_to_bpp, compress_to_psnr
from models.errors import ModelError, StreamError, TargetError
from models.inference import Apply
from models.registry import load_model
from pipeline.errors import PictureError, StorageError
from pipeline.networks.codec_choice import CodecChoice
from pipeline.pictures.headers import profile_fits
from pipeline.pictures.metadata.exif import orientation_of
from pipeline.pictures.metadata.fit import Fitted, fit
from pipeline.pictures.metadata.read import describe
from pipeline.pictures.picture import Crop, Metadata, Picture, Reserve, at_once, check_crop, join_alpha, to_8bit
from pipeline.pictures.transparency import colour_of, eased
from pipeline.storage.files import StoredFiles

#: sizes are compared with the run's own limit, which gives another reason than damage
_ANY_SIZE = 1 << 64
#: a decoded alpha plane is as large as this share of the memory that a pixel in work is reckoned with
_ALPHA_SHARE = 10


def open_codec(name_or_url: str) -> Codec:
    """Open the codec of a shipped model, or of the safetensors file at a URL. Raises ModelError, StorageError."""
    return load_codec(name_or_url)[0]


def load_codec(name_or_url: str, sha256: str | None = None) -> tuple[Codec, str]:
    """Load a codec with weights of that hash, or any (None); return it and the SHA-256 of its weights.

    Raises ModelError, StorageError.
    """
    model = load_model(name_or_url, "codec", StoredFiles(), sha256)
    # a card may be named in any way, the name in a stream may not
    name = re.sub(r"[^A-Za-z0-9._-]", "-", model.card.name)[:64] or "unnamed"
    codec = Codec(cast(FrozenCodec, model.network), name, bytes.fromhex(model.card.sha256)[:HASH_BYTES])
    return codec, model.card.sha256


def tag_of(codec: Codec) -> str:
    """Return `name@` and the first 12 digits of the weights' hash, as written in tables."""
    return f"{codec.name}@{codec.model_hash.hex()[:12]}"


def find_codec(digits: str, name: str, codecs: Sequence[Codec] = ()) -> Codec:
    """Find the codec whose weights' hash begins with these hexadecimal digits: one of `codecs`, or a shipped one.

    Raises PictureError("unknown_model"), which names the model it was.
    """
    for codec in codecs:
        if codec.model_hash.hex().startswith(digits):
            return codec
    try:
        for card in list_cards():
            if card.task == "codec" and card.sha256.startswith(digits):
                return load_codec(card.name, card.sha256)[0]
    except (ModelError, StorageError) as error:
        raise PictureError("unknown_model", str(error)) from error
    raise PictureError(
        "unknown_model",
        f"made by the model {name} ({digits[:12]}), which does not come with this Darkroom; "
        "give the URL of its weights with --model",
    )


def encode_stream(codec: Codec, picture: Picture, choice: CodecChoice, apply: Apply) -> tuple[bytes, Latent]:
    """Encode a picture as the bytes of a `.drk` file at the chosen quality or target; return them and the latent.

    Raises PictureError("step_failed") when the target cannot be met or the format cannot hold the picture.
    """
    still = _still(picture)
    try:
        if choice.target_bpp is not None:
            found = compress_to_bpp(codec, still, choice.target_bpp, apply)
        elif choice.target_psnr is not None:
            found = compress_to_psnr(codec, still, choice.target_psnr, apply)
        else:
            assert choice.quality is not None
            return compress(codec, still, round(16 * choice.quality), apply)
    except TargetError as error:
        raise PictureError("step_failed", str(error)) from error
    return found.data, found.latent


def decode_stream(
    data: bytes,
    key: str,
    apply: Apply,
    *,
    pixel_limit: int = PIXEL_LIMIT,
    codecs: Sequence[Codec] = (),
    crop: Crop | None = None,
    reserve: Reserve = at_once,
) -> Picture:
    """Decode the picture in a `.drk` file, or its part `crop`, for which only the tiles around it are decoded.

    `reserve` is told from the header how many pixels there will be, before anything large is allocated.
    Raises PictureError and nothing else: truncated, corrupt, too_large, unsupported (another version of the format),
    unknown_model (neither shipped nor among `codecs`), step_failed (the crop leaves the picture).
    """
    header = _header(data, pixel_limit)
    if crop is not None:
        check_crop(crop, header.width, header.height)
    codec = find_codec(header.model_hash.hex(), header.model, codecs)
    whole = header.width * header.height
    reserve(whole if crop is None else min(whole, crop.width * crop.height + whole // _ALPHA_SHARE), 4)
    return decode_with(codec, data, key, apply, crop, pixel_limit)


def decode_with(
    codec: Codec, data: bytes, key: str, apply: Apply, crop: Crop | None = None, pixel_limit: int = PIXEL_LIMIT
) -> Picture:
    """Decode a `.drk` file as `decode_stream` does, where the codec is known. Raises PictureError."""
    box = None if crop is None else (crop.left, crop.top, crop.width, crop.height)
    try:
        return _picture(key, decompress(codec, data, apply, box, pixel_limit))
    except StreamError as error:
        raise _bad_stream(error) from error
    except Exception as error:
        raise PictureError("step_failed", f"drk: {type(error).__name__}: {error}") from error


def _header(data: bytes, pixel_limit: int) -> Header:
    try:
        header = read_header(data, _ANY_SIZE).header
    except StreamError as error:
        if data[:4] != MAGIC or data[4:5] > bytes([VERSION]):
            raise PictureError("unsupported", f"drk: {error}") from error
        raise _bad_stream(error) from error
    pixels = header.width * header.height
    if pixels > pixel_limit:
        raise PictureError("too_large", f"the header announces {pixels:,} pixels; the limit is {pixel_limit:,}")
    return header


def _bad_stream(error: StreamError) -> PictureError:
    text = str(error)
    cut = "ends inside" in text or "is cut" in text
    return PictureError("truncated" if cut else "corrupt", f"drk: {text}")


def _still(picture: Picture) -> Still:
    alpha = None if picture.alpha is None else np.ascontiguousarray(to_8bit(picture.alpha)[:, :, 0])
    said = what_is_kept(picture).metadata
    return Still(to_8bit(colour_of(eased(picture.pixels))), alpha, said.bit_depth, said.icc or b"", said.exif or b"")


def what_is_kept(picture: Picture) -> Fitted:
    """Return what of a picture's metadata a stream keeps, and the names of what it does not keep."""
    height, width, channels = picture.pixels.shape
    fitted = fit(picture.metadata, EXTENSION, width, height, channels)
    return fitted if picture.pixels.dtype == np.uint8 else replace(fitted, dropped=("16 bits", *fitted.dropped))


def _picture(key: str, still: Still) -> Picture:
    pixels = join_alpha(still.colour, None if still.alpha is None else still.alpha[:, :, None])
    mode = ("grey", "rgb")[still.colour.shape[2] == 3] + ("" if still.alpha is None else "+alpha")
    icc = still.icc if profile_fits(still.icc, pixels.shape[2]) else None
    # pixels of a stream are upright, whatever somebody else has written into its EXIF
    exif = orientation_of(still.exif)[1] if still.exif[:4] in (b"II*\0", b"MM\0*") else None
    return Picture(key, pixels, describe(b"", EXTENSION, Metadata("drk", mode, still.bit_depth, icc=icc, exif=exif)))
