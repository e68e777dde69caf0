"""Classical codecs, each a pair of functions that mirror each other.

`encode_*` takes H x W x 1|3, and but for JPEG with alpha H x W x 2|4, uint8 (0..255) or uint16 (0..65535), and gives a
whole file's bytes; the decoders give the like back. Grey stays grey; with alpha it comes back as colour from tiff_lzw,
and from jpeg2000 if it has 16 bits. Alpha is kept without loss, but for avif and lossy jpeg2000. uint16 is kept by png,
png_huffman, tiff_lzw and jpeg2000, and by jpeg_xl in grey without alpha; everywhere else it is rounded to 8 bits and
comes back as uint8. Files hold the metadata that they are given, fitted to them. Bytes depend on the pixels, these, the
parameters and the libraries' versions only, never on the number of cores.

Every encoder raises PictureError("step_failed") for a picture its format cannot hold, every decoder
PictureError("corrupt") for bytes that are no such file.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import cv2
import numpy as np
from PIL import AvifImagePlugin, Image, Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin
from pydantic import Field, model_validator

from pipeline.errors import PictureError
from pipeline.pictures import tiff
from pipeline.pictures.encode import png_file
from pipeline.pictures.headers import PNG_SIGNATURE
from pipeline.pictures.metadata.embed import for_pillow, into_avif, into_jpeg, into_jpeg2000, into_png
from pipeline.pictures.picture import Metadata, to_8bit
from pipeline.steps.arrays import white_level, with_channels
from pipeline.steps.registry import Parameters, codec_step

#: libjpeg's own limit, a little below the 65535 of the format.
JPEG_LIMIT = 65_500
WEBP_LIMIT = 16_383
AVIF_LIMIT = 65_535
#: OpenCV reads no picture with a longer side.
OPENCV_LIMIT = 1 << 20

#: metadata of pixels alone
NOTHING = Metadata("none", "", 8)

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


class Jpeg(Parameters):
    """Parameters of `jpeg`."""

    quality: int = Field(default=75, ge=1, le=100, description="quality; 100 is not lossless")
    subsampling: Subsampling = Field(
        default="4:2:0", description="4:4:4 keeps all colour detail, 4:2:0 a quarter of it"
    )
    optimise: bool = Field(default=True, description="Huffman tables made for this picture: smaller, slower")
    progressive: bool = Field(default=False, description="coarse to fine; usually a little smaller")


class Png(Parameters):
    """Parameters of `png`."""

    level: int = Field(default=6, ge=0, le=9, description="deflate level: 0 stores, 9 searches longest")


class PngHuffman(Parameters):
    """Parameters of `png_huffman`."""

    row_filter: Literal["adaptive", "sub"] = Field(
        "adaptive", description="prediction before the Huffman code: the best of five for each row, or always the left"
    )


class TiffLzw(Parameters):
    """Parameters of `tiff_lzw`, which has none."""


class Webp(Parameters):
    """Parameters of `webp`."""

    quality: float = Field(default=75, ge=0, le=100, description="quality; 100 is not lossless")
    method: int = Field(default=4, ge=0, le=6, description="effort: 6 searches longest")


class WebpLossless(Parameters):
    """Parameters of `webp_lossless`."""

    effort: int = Field(default=80, ge=0, le=100, description="effort: 100 searches longest")
    method: int = Field(default=4, ge=0, le=6, description="coding method: 6 searches longest")


class Jpeg2000(Parameters):
    """Parameters of `jpeg2000`; without psnr and rate the coding is lossless (5/3 wavelet)."""

    psnr: float | None = Field(
        default=None, ge=10, le=100, description="PSNR to reach, in dB, against the dtype's white"
    )
    rate: float | None = Field(default=None, gt=1, le=1000, description="times smaller than the raw pixels")

    @model_validator(mode="after")
    def _one_target(self) -> Jpeg2000:
        if self.psnr is not None and self.rate is not None:
            raise ValueError("give psnr or rate, not both")
        return self


class Avif(Parameters):
    """Parameters of `avif`."""

    quality: int = Field(default=60, ge=0, le=100, description="quality; 100 is not lossless")
    speed: int = Field(default=6, ge=0, le=10, description="0 searches longest, 10 is fastest")
    subsampling: Subsampling = Field(
        default="4:4:4", description="4:4:4 keeps all colour detail, 4:2:0 a quarter of it"
    )


class JpegXl(Parameters):
    """Parameters of `jpeg_xl`."""

    quality: float = Field(default=90, ge=0, le=100, description="quality; 100 is not lossless")
    lossless: bool = Field(default=False, description="keep every value; quality then does not count")
    effort: int = Field(default=7, ge=1, le=9, description="effort: 9 searches longest")


def encode_jpeg(pixels: np.ndarray, parameters: Jpeg, said: Metadata = NOTHING) -> bytes:
    """Encode as JPEG (libjpeg-turbo); uint16 is rounded to 8 bits."""
    _check_sides(pixels, JPEG_LIMIT, "JPEG")
    factors = {
        "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
        "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    }
    flags = [cv2.IMWRITE_JPEG_QUALITY, parameters.quality, cv2.IMWRITE_JPEG_OPTIMIZE, int(parameters.optimise)]
    flags += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(parameters.progressive)]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors[parameters.subsampling]]
    return into_jpeg(_opencv_bytes(".jpg", to_8bit(pixels), flags), said)


def encode_png(pixels: np.ndarray, parameters: Png, said: Metadata = NOTHING) -> bytes:
    """Encode as PNG, lossless, 8 and 16 bits."""
    _check_sides(pixels, OPENCV_LIMIT, "PNG")
    if pixels.shape[2] == 2:
        return into_png(png_file(pixels, parameters.level), said)
    return into_png(_opencv_bytes(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, parameters.level]), said)


def encode_png_huffman(pixels: np.ndarray, parameters: PngHuffman, said: Metadata = NOTHING) -> bytes:
    """Encode as PNG with Huffman coding alone (zlib's Z_HUFFMAN_ONLY): lossless, fast, no string matching."""
    _check_sides(pixels, OPENCV_LIMIT, "PNG")
    if pixels.shape[2] == 2:
        return into_png(png_file(pixels, 6, zlib.Z_HUFFMAN_ONLY), said)
    strategy = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    # A level makes OpenCV try all filters and resets the strategy, so it has to come first.
    level = [cv2.IMWRITE_PNG_COMPRESSION, 6] if parameters.row_filter == "adaptive" else []
    return into_png(_opencv_bytes(".png", pixels, level + strategy), said)


def encode_tiff_lzw(pixels: np.ndarray, parameters: TiffLzw, said: Metadata = NOTHING) -> bytes:
    """Encode as TIFF with LZW and horizontal prediction, lossless, 8 and 16 bits."""
    _check_sides(pixels, OPENCV_LIMIT, "TIFF")
    lzw, horizontal = 5, 2
    flags = [cv2.IMWRITE_TIFF_COMPRESSION, lzw, cv2.IMWRITE_TIFF_PREDICTOR, horizontal]
    # OpenCV writes no grey with alpha, and does not say that a fourth channel is alpha
    wide = pixels[:, :, [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels
    data = _opencv_bytes(".tiff", wide, flags)
    return tiff.with_metadata(tiff.with_alpha_named(data) if wide.shape[2] == 4 else data, said)


def encode_webp(pixels: np.ndarray, parameters: Webp, said: Metadata = NOTHING) -> bytes:
    """Encode as WebP, lossy (VP8, chroma always halved); uint16 is rounded to 8 bits, sides up to 16383."""
    return _webp_bytes(pixels, said, quality=parameters.quality, method=parameters.method)


def encode_webp_lossless(pixels: np.ndarray, parameters: WebpLossless, said: Metadata = NOTHING) -> bytes:
    """Encode as WebP, lossless for 8 bits; uint16 is rounded to 8 bits first, sides up to 16383."""
    return _webp_bytes(pixels, said, lossless=True, quality=parameters.effort, method=parameters.method)


def encode_jpeg2000(pixels: np.ndarray, parameters: Jpeg2000, said: Metadata = NOTHING) -> bytes:
    """Encode as JPEG 2000 at a PSNR, at a rate, or lossless; 8 and 16 bits.

    Lossy coding uses the 9/7 wavelet, except for 16-bit colour: that goes through OpenCV, which has the 5/3
    wavelet only, steps of a thousandth of the raw size (a PSNR is found by bisection) and sides from 32 pixels.
    """
    if pixels.dtype == np.uint16 and pixels.shape[2] > 1:
        wide = pixels[:, :, [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels
        return into_jpeg2000(_encode_jpeg2000_wide(wide, parameters), said)
    # Pillow leaves the colour transform out unless told, which costs two decibels
    settings: dict[str, Any] = {"irreversible": False, "mct": int(pixels.shape[2] > 2)}
    if parameters.psnr is not None:
        settings |= {"quality_mode": "dB", "quality_layers": [parameters.psnr], "irreversible": True}
    elif parameters.rate is not None:
        settings |= {"quality_mode": "rates", "quality_layers": [parameters.rate], "irreversible": True}
    return into_jpeg2000(_pillow_bytes("JPEG2000", pixels, **settings), said)


def encode_avif(pixels: np.ndarray, parameters: Avif, said: Metadata = NOTHING) -> bytes:
    """Encode as AVIF, lossy; uint16 is rounded to 8 bits, grey is stored without chroma."""
    _check_sides(pixels, AVIF_LIMIT, "AVIF")
    subsampling = "4:0:0" if pixels.shape[2] <= 2 else parameters.subsampling
    # Threads and automatic tiles would make the bytes depend on the machine.
    data = _pillow_bytes(
        "AVIF",
        to_8bit(pixels),
        quality=parameters.quality,
        speed=parameters.speed,
        subsampling=subsampling,
        max_threads=1,
        autotiling=False,
        **for_pillow(said, turned=False),
    )
    return into_avif(data, said)


def encode_jpeg_xl(pixels: np.ndarray, parameters: JpegXl, said: Metadata = NOTHING) -> bytes:
    """Encode as JPEG XL, lossy or lossless; uint16 is kept in grey and rounded to 8 bits in colour."""
    kept = pixels if pixels.shape[2] == 1 else to_8bit(pixels)
    settings = {"lossless": True} if parameters.lossless else {"quality": parameters.quality}
    given = for_pillow(said)
    if "exif" in given:
        # the box begins with the offset of the block in it, which the plugin leaves to whoever calls it
        given["exif"] = bytes(4) + given["exif"]
    return _pillow_bytes("JXL", kept, **settings, effort=parameters.effort, num_threads=1, **given)


def decode_opencv(data: bytes) -> np.ndarray:
    """Decode a JPEG or PNG file, or a TIFF file without alpha, from the encoders here to pixels.

    They are H x W x 1..4, uint8 or uint16.
    """
    try:
        decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise PictureError("corrupt", f"the bytes could not be decoded: {error}") from error
    if decoded is None:
        raise PictureError("corrupt", "the bytes could not be decoded")
    if decoded.ndim == 2:
        return with_channels(decoded)
    if decoded.shape[2] == 3:
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    # to OpenCV grey PNG files with alpha are colour
    grey = data[:4] == PNG_SIGNATURE[:4] and data[25] == 4
    return np.ascontiguousarray(decoded[:, :, [0, 3]]) if grey else cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA)


def decode_tiff(data: bytes) -> np.ndarray:
    """Decode a TIFF file from `encode_tiff_lzw` to pixels (H x W x 1|3|4, uint8 or uint16)."""
    decoded = decode_opencv(data)
    if decoded.shape[2] < 4 or decoded.dtype == np.uint16:
        return decoded
    # OpenCV multiplies colour by alpha, in 8 bits only
    return np.array(_pillow_picture(TiffImagePlugin.TiffImageFile, data))


def decode_webp(data: bytes) -> np.ndarray:
    """Decode a WebP file from `encode_webp` or `encode_webp_lossless` to pixels (H x W x 1..4, uint8)."""
    picture = _pillow_picture(WebPImagePlugin.WebPImageFile, data)
    marked = (picture.info.get("xmp") or b"").endswith(_GREY)
    return _in_grey(picture) if marked else with_channels(np.array(picture))


def decode_jpeg2000(data: bytes) -> np.ndarray:
    """Decode a JPEG 2000 file from `encode_jpeg2000` to pixels (H x W x 1..4, uint8 or uint16)."""
    # Pillow reads 16-bit colour as 8 bits; the depth of the first component stands in the image header box.
    header = data.find(b"ihdr")
    wide_colour = header > 0 and data[header + 12 : header + 15] in (b"\x00\x03\x0f", b"\x00\x04\x0f")
    return (
        decode_opencv(data)
        if wide_colour
        else with_channels(np.array(_pillow_picture(Jpeg2KImagePlugin.Jpeg2KImageFile, data)))
    )


def decode_avif(data: bytes) -> np.ndarray:
    """Decode an AVIF file from `encode_avif` to pixels (H x W x 1..4, uint8)."""
    picture = _pillow_picture(AvifImagePlugin.AvifImageFile, data)
    # Pillow before 12 gives RGB for files without chroma; the flag is in the third byte of the av1C box.
    header = data.find(b"av1C")
    grey = header > 0 and bool(data[header + 6] & 0x10)
    return _in_grey(picture) if grey else with_channels(np.array(picture))


def decode_jpeg_xl(data: bytes) -> np.ndarray:
    """Decode a JPEG XL file from `encode_jpeg_xl` to pixels (H x W x 1..4, uint8, or uint16 grey)."""
    from pillow_jxl.JpegXLImagePlugin import JXLImageFile

    return with_channels(np.array(_pillow_picture(JXLImageFile, data)))


#: WebP has no grey pictures. What ends its XMP, here a comment of XML, says that this one was, so that it comes back as
#: one channel.
_GREY = b"<!--grey-->"


def _in_grey(picture: Image.Image) -> np.ndarray:
    return with_channels(np.array(picture.convert("LA" if picture.mode == "RGBA" else "L")))


def _webp_bytes(pixels: np.ndarray, said: Metadata, **settings: Any) -> bytes:
    _check_sides(pixels, WEBP_LIMIT, "WebP")
    marked = replace(said, xmp=(said.xmp or b"") + _GREY) if pixels.shape[2] <= 2 else said
    return _pillow_bytes("WEBP", to_8bit(pixels), **settings, **for_pillow(marked))


def _encode_jpeg2000_wide(pixels: np.ndarray, parameters: Jpeg2000) -> bytes:
    if min(pixels.shape[:2]) < 32:
        raise PictureError("step_failed", "JPEG 2000 is written in 16-bit colour only from 32 pixels a side")
    _check_sides(pixels, OPENCV_LIMIT, "JPEG 2000")

    def at(thousandths: int) -> bytes:
        return _opencv_bytes(".jp2", pixels, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, thousandths])

    if parameters.rate is not None:
        return at(max(1, round(1000 / parameters.rate)))
    if parameters.psnr is None:
        return at(1000)
    low, high = 0, 1000
    allowed = white_level(pixels) ** 2 / 10 ** (parameters.psnr / 10)
    while high - low > 1:
        middle = (low + high) // 2
        error = _mean_squared(pixels, decode_opencv(at(middle)))
        low, high = (low, middle) if error <= allowed else (middle, high)
    return at(high)


def _mean_squared(one: np.ndarray, other: np.ndarray) -> float:
    return float(cv2.norm(one, other, cv2.NORM_L2SQR)) / one.size


def _check_sides(pixels: np.ndarray, limit: int, name: str) -> None:
    height, width = pixels.shape[:2]
    if max(height, width) > limit:
        raise PictureError("step_failed", f"{name} holds at most {limit} pixels a side; this is {width} x {height}")


def _opencv_bytes(extension: str, pixels: np.ndarray, flags: list[int]) -> bytes:
    try:
        order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(pixels.shape[2])
        ordered = pixels if order is None else cv2.cvtColor(pixels, order)
        done, data = cv2.imencode(extension, ordered, flags)
    except cv2.error as error:
        raise PictureError("step_failed", f"{extension[1:]} could not be written: {error}") from error
    if not done:
        raise PictureError("step_failed", f"{extension[1:]} could not be written")
    return data.tobytes()


def _pillow_bytes(name: str, pixels: np.ndarray, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0]).save(buffer, name, **settings)
    except (OSError, ValueError, RuntimeError) as error:
        raise PictureError("step_failed", f"{name} could not be written: {error}") from error
    return buffer.getvalue()


def _pillow_picture(opener: Callable[[io.BytesIO], Image.Image], data: bytes) -> Image.Image:
    """Open bytes with one format's reader: Image.open would also warn of large pictures, and these are our own."""
    try:
        picture = opener(io.BytesIO(data))
        picture.load()
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:
        raise PictureError("corrupt", f"the bytes could not be decoded: {error}") from error
    return picture


def _is_lossy(parameters: Any) -> bool:
    if isinstance(parameters, Jpeg2000):
        return parameters.psnr is not None or parameters.rate is not None
    return not (isinstance(parameters, JpegXl) and parameters.lossless)


codec_step("jpeg", Jpeg, encode_jpeg, decode_opencv, "jpg", container="jpeg", lossy=_is_lossy)
codec_step("png", Png, encode_png, decode_opencv, "png", holds_alpha=True, container="png")
codec_step("png_huffman", PngHuffman, encode_png_huffman, decode_opencv, "png", holds_alpha=True, container="png")
codec_step("tiff_lzw", TiffLzw, encode_tiff_lzw, decode_tiff, "tiff", holds_alpha=True, container="tiff")
codec_step("webp", Webp, encode_webp, decode_webp, "webp", holds_alpha=True, container="webp", lossy=_is_lossy)
codec_step("webp_lossless", WebpLossless, encode_webp_lossless, decode_webp, "webp", holds_alpha=True, container="webp")
codec_step(
    "jpeg2000",
    Jpeg2000,
    encode_jpeg2000,
    decode_jpeg2000,
    "jp2",
    version=2,
    holds_alpha=True,
    container="jpeg2000",
    lossy=_is_lossy,
)
codec_step("avif", Avif, encode_avif, decode_avif, "avif", holds_alpha=True, container="avif", lossy=_is_lossy)

try:
    import pillow_jxl  # noqa: F401
except ImportError:
    pass
else:
    codec_step(
        "jpeg_xl", JpegXl, encode_jpeg_xl, decode_jpeg_xl, "jxl", holds_alpha=True, container="jpeg_xl", lossy=_is_lossy
    )
