"""Decoding: from the bytes of a picture file to pixels and what the file said of them.

The format is taken from the first bytes, never from the name, and the size from the header, before anything is
allocated. Ordinary 8-bit JPEGs go to libjpeg-turbo, which says what is damaged; TIFFs are read by their tags; 16-bit
colour PNG and JPEG 2000 and 10/12-bit AVIF, which Pillow cuts down to 8 bits, go to OpenCV. HEIF, JPEG XL and camera
raws need packages that are extras. All else goes to Pillow.

Decisions that are not obvious:

- Palettes become RGB (with alpha where an entry is transparent); a colour key (PNG tRNS, GIF) becomes alpha.
- CMYK becomes sRGB, through the embedded profile where it is a usable CMYK profile, else by (1 - ink) * (1 - black).
  Lab becomes sRGB. The profile is then dropped, for it no longer describes the pixels.
- A profile of RGB or grey pixels is kept and the pixels are left unconverted. A profile of another colour space than
  the pixels is dropped.
- Samples of more than 8 bits are scaled to 0..65535. Float TIFF too: values within 0..1 are taken as the full range,
  anything else is stretched from its least to its greatest finite value; NaN is taken as 0.
- A JPEG that lacks only its end marker, with every pixel there, is a good picture.
- 16-bit CMYK TIFF becomes sRGB by (1 - ink) * (1 - black), for no profile is applied to 16 bits.
"""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    PsdImagePlugin,
    TgaImagePlugin,
    WebPImagePlugin,
)

from pipeline.errors import PictureError
from pipeline.pictures import headers, tiff
from pipeline.pictures.formats import jpeg, tiff_reader
from pipeline.pictures.formats.bands import judge_alpha
from pipeline.pictures.formats.frames import further_frames
from pipeline.pictures.formats.heif import read_heif
from pipeline.pictures.formats.jpeg_xl import read_jpeg_xl
from pipeline.pictures.formats.libtiff import listening
from pipeline.pictures.formats.netpbm import netpbm_depth, read_netpbm
from pipeline.pictures.formats.pillow_pixels import MODELS, pixels_of
from pipeline.pictures.formats.raw import read_raw
from pipeline.pictures.formats.tiff_samples import classic, read_samples, scaled
from pipeline.pictures.formats.zeros import zeroed
from pipeline.pictures.metadata.exif import orientation_of
from pipeline.pictures.metadata.found import UNPACKED_LIMIT
from pipeline.pictures.metadata.read import describe
from pipeline.pictures.picture import Metadata, Picture, Reserve, at_once

#: Most scans of a progressive JPEG. Encoders write about ten; thousands over a large canvas take minutes to decode.
SCAN_LIMIT = 200

# What OpenCV and Pillow would print of a bad file is raised here as a PictureError.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# Pillow refuses a PNG for a text of a megabyte, such as XMP with a long history.
PngImagePlugin.MAX_TEXT_CHUNK = UNPACKED_LIMIT


_READERS: dict[str, Any] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "tiff": tiff_reader.Tiff,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "jpeg2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
    "ppm": PpmImagePlugin.PpmImageFile,
    "psd": PsdImagePlugin.PsdImageFile,
    "ico": IcoImagePlugin.IcoImageFile,
    "tga": TgaImagePlugin.TgaImageFile,
}


def decode(data: bytes, key: str = "", pixel_limit: int = 178_000_000, reserve: Reserve = at_once) -> Picture:
    """Decode the bytes of one picture file; of several frames or pages, the first.

    Returns a `Picture` whose pixels are H x W x (1 grey | 2 grey + alpha | 3 RGB | 4 RGB + alpha), upright,
    uint8 (0..255), or uint16 (0..65535) where the file holds more than 8 bits a sample.
    Raises `PictureError` and nothing else: `truncated`, `too_large` (more than `pixel_limit` pixels announced),
    `unsupported`, `corrupt` or `not_an_image`, or what `reserve` raises. Safe to call from several threads at once.
    """
    name = headers.sniff(data, key)
    try:
        picture = _decode_plain_jpeg(data, key, pixel_limit, reserve) if name == "jpeg" else None
        picture = picture or _decode_with_extra(data, name, key, pixel_limit, reserve)
        picture = picture or _decode_with_pillow(data, name, key, pixel_limit, reserve)
        if picture.metadata.damage is None and (damage := zeroed(data, name)):
            picture = replace(picture, metadata=replace(picture.metadata, damage=damage))
        return replace(picture, metadata=describe(data, name, picture.metadata))
    except PictureError:
        raise
    except Exception as error:
        # The libraries raise a dozen unrelated classes on hostile bytes; all of them mean the picture is bad.
        raise explain(error, name, headers.looks_cut(data, name)) from error


def explain(error: Exception, name: str, cut: bool = False) -> PictureError:
    """Turn what a library raised on a file of format `name` into a PictureError.

    `cut`: the end of the file is missing.
    """
    if isinstance(error, PictureError):
        return error
    text = f"{name}: {error}" if str(error) else f"{name}: {type(error).__name__}"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)):
        return PictureError("too_large", text)
    if "truncated" in text.lower() or isinstance(error, EOFError) or cut:
        return PictureError("truncated", text)
    if isinstance(error, NotImplementedError) or any(w in text.lower() for w in ("unsupported", "unknown", "support")):
        return PictureError("unsupported", text)
    return PictureError("corrupt", text)


def _check_size(pixels: int, limit: int) -> None:
    if pixels > limit:
        raise PictureError("too_large", f"the header announces {pixels:,} pixels; the limit is {limit:,}")


def _decode_plain_jpeg(data: bytes, key: str, pixel_limit: int, reserve: Reserve) -> Picture | None:
    """Decode a grey or RGB JPEG of 8 bits, the fast way; return None where Pillow should decide."""
    header = headers.jpeg_header(data)
    if header is None:
        return None
    _check_size(header.width * header.height, pixel_limit)
    if header.precision != 8 or header.frame > 0xC2:
        raise PictureError("unsupported", f"JPEG of {header.precision} bits, frame type {header.frame:#x}, is not read")
    several_scans = header.frame == 0xC2 or data[header.scan + 4 : header.scan + 5] != bytes([header.components])
    if several_scans and data.count(b"\xff\xda", header.scan) > SCAN_LIMIT:
        raise PictureError("corrupt", f"more than {SCAN_LIMIT} scans in one JPEG")
    if header.components not in (1, 3) or not headers.jpeg_is_complete(data, header.scan):
        return None
    reserve(header.width * header.height, header.components)
    decoded = jpeg.decode_jpeg(data, header)
    if decoded is None:
        return None
    pixels, damage = decoded
    mode = "grey" if header.components == 1 else "rgb"
    return _finish(key, pixels, Metadata("jpeg", mode, 8, icc=header.icc, exif=header.exif, damage=damage))


def _decode_with_extra(data: bytes, name: str, key: str, pixel_limit: int, reserve: Reserve) -> Picture | None:
    """Decode what needs a package that is an extra: HEIF, JPEG XL, camera raws; None for other formats."""
    if name == "heif":
        return _finish(key, *read_heif(data, pixel_limit, reserve))
    if name == "raw":
        return _finish(key, *read_raw(data, pixel_limit, reserve))
    if name != "jpeg_xl":
        return None
    found = read_jpeg_xl(data, pixel_limit, reserve)
    if isinstance(found, tuple):
        return _finish(key, *found)
    picture = decode(found, key, pixel_limit, reserve)
    return replace(picture, metadata=replace(picture.metadata, format="jpeg_xl"))


def _decode_with_pillow(data: bytes, name: str, key: str, pixel_limit: int, reserve: Reserve) -> Picture:
    data = classic(data) if data[:4] == b"MM\0+" else data
    depth, icc, all_grey = _early_checks(data, name, pixel_limit, reserve)
    with tiff.no_warnings():
        im = _READERS[name](io.BytesIO(data))
        exif = _exif(im, name)
    _check_size(im.size[0] * im.size[1], pixel_limit)
    frames = further_frames(im, data, name)
    if name == "tiff":
        tiff_reader.check_strips(im, len(data))
        samples = read_samples(data, im.tag_v2, reserve)
        if samples is not None:
            pixels, mode = tiff_reader.grey_or_rgb(samples)
            icc = None if mode == "cmyk" else im.info.get("icc_profile") or im.tag_v2.get(34675)
            depth = im.tag_v2.get(258, (1,))[0]
            omitted = _joined(samples.omitted, frames)
            return _finish(key, pixels, Metadata(name, mode, depth, icc=icc, exif=exif, omitted=omitted))
        if im.unknown:
            raise PictureError("unsupported", tiff_reader.unknown(im))
        depth = max(im.tag_v2.get(258, (1,)))
    elif im.mode == "1":
        depth = 1
    elif name == "ppm":
        depth = netpbm_depth(data)
    # palettes become RGB, with alpha or without; samples of more than 8 bits, and floats, two bytes
    deeper = depth > 8 or im.mode.startswith(("I", "F"))
    reserve(im.size[0] * im.size[1], (4 if im.mode in ("P", "PA") else len(im.getbands())) * (2 if deeper else 1))
    icc = icc or im.info.get("icc_profile")
    deep = read_netpbm(data) if name == "ppm" and depth > 8 else _decode_deep(data, name, im, depth)
    damage = None
    if deep is None:
        with listening() as words:
            try:
                pixels, mode = pixels_of(im, name, depth, icc, data)
            except OSError as error:
                raise OSError(f"{words[0]} ({error})" if words else str(error)) from error
        damage = f"tiff: {words[0]}; parts of the picture are filled in or wrong" if words else None
    else:
        pixels, mode = deep, MODELS[("L", "LA", "RGB", "RGBA")[deep.shape[2] - 1]]
    if depth > 8 and pixels.dtype == np.uint8:
        raise PictureError("unsupported", f"{name}: {mode} of {depth} bits is not read; convert it to PNG or TIFF")
    pixels, omitted = judge_alpha(np.atleast_3d(pixels), data, name)
    mode = mode if pixels.shape[2] in (2, 4) else mode.removesuffix("+alpha")
    if all_grey and mode in ("rgb", "rgb+alpha"):
        pixels, mode = (pixels[:, :, [0, 3]], "grey+alpha") if mode == "rgb+alpha" else (pixels[:, :, :1], "grey")
    if mode in ("cmyk", "lab"):
        icc = None
    header = headers.jpeg_header(data) if name == "jpeg" else None
    if header is not None:
        damage = jpeg.damage_of(data, header)
    elif name == "tiff":
        damage = damage or tiff_reader.damage_of_jpegs(data, im)
    omitted = _joined(omitted, frames)
    xmp = im.info.get("xmp") if isinstance(im.info.get("xmp"), bytes) else None
    return _finish(
        key, pixels, Metadata(name, mode, depth, icc=icc, exif=exif, damage=damage, omitted=omitted, xmp=xmp)
    )


def _joined(*words: str | None) -> str | None:
    return "; ".join(word for word in words if word) or None


def _early_checks(data: bytes, name: str, pixel_limit: int, reserve: Reserve) -> tuple[int, bytes | None, bool]:
    """Check the announced size and whether the file is cut, before it is opened.

    Returns bits a sample, the ICC profile where Pillow does not find it, and whether all samples are grey.
    """
    if name == "png" and data[12:16] == b"IHDR" and len(data) > 25:
        _check_size(int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big"), pixel_limit)
        headers.check_png_checksums(data)
        return data[24], None, False
    if name == "psd" and (bits := int.from_bytes(data[22:24], "big")) not in (1, 8):
        raise PictureError("unsupported", f"PSD documents of {bits} bits a sample are not read; save it as TIFF")
    if name == "gif":
        pixels = int.from_bytes(data[6:8], "little") * int.from_bytes(data[8:10], "little")
        _check_size(pixels, pixel_limit)
        if pixels == 0 and len(data) >= 10:
            raise PictureError("corrupt", "the GIF has no width or no height")
    if name == "webp":
        pixels = headers.webp_pixels(data)
        _check_size(pixels, pixel_limit)
        # the canvas is allocated when the file is opened
        reserve(pixels, 4)
    if name == "avif":
        pixels, depth, grey = headers.avif_header(data)
        _check_size(pixels, pixel_limit)
        reserve(pixels, 4 if depth == 8 else 8)
        return depth, None, grey
    if name == "jpeg2000":
        pixels, depth, icc = headers.jpeg2000_header(data)
        _check_size(pixels, pixel_limit)
        # OpenJPEG fills what is missing with grey and says nothing.
        if headers.looks_cut(data, name):
            raise PictureError("truncated", "the JPEG 2000 codestream ends too early")
        return depth, icc, False
    return 8, None, False


def _exif(im: Any, name: str) -> bytes | None:
    if name == "tiff":
        return tiff.exif_of(im)
    exif = im.info.get("exif")
    if exif is None and "Raw profile type exif" in im.info:
        # ImageMagick's way before PNG had an eXIf chunk: name, length, then hexadecimal lines.
        try:
            exif = bytes.fromhex("".join(im.info["Raw profile type exif"].split("\n")[3:]))
        except ValueError:
            return None
    return exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else None


def _decode_deep(data: bytes, name: str, im: Any, depth: int) -> np.ndarray | None:
    """Decode samples of more than 8 bits with OpenCV, which Pillow would cut; return None where it cannot.

    The pixels are H x W x 1 (AVIF), 3 or 4 (16-bit grey + alpha PNG: 2), uint16.
    """
    wanted = {
        "png": depth == 16 and im.mode in ("RGB", "RGBA"),
        "jpeg2000": depth > 8 and im.mode in ("RGB", "RGBA"),
        "avif": depth > 8,
    }
    if not wanted.get(name):
        return None
    if name == "png":
        samples = {2: 3, 4: 2, 6: 4}[data[25]]
        filters = im.size[1] if data[28] == 0 else 0
        headers.check_png(data, im.size[1] * im.size[0] * samples * 2 + filters)
        # of what else is in it, OpenCV would print what it thinks
        data = headers.png_pixels_only(data)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        return None
    if (pixels.shape[1], pixels.shape[0]) != im.size:
        return None
    if name in ("avif", "jpeg2000"):
        pixels = scaled(pixels, depth)
    if pixels.ndim == 2:
        return pixels[:, :, None]
    if name == "png" and data[25] == 4:
        return pixels[:, :, [0, 3]]
    if pixels.shape[2] == 4:
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _finish(key: str, pixels: np.ndarray, said: Metadata) -> Picture:
    """Return the picture turned upright, its pixels contiguous, without metadata that cannot describe them."""
    orientation, exif = 1, None
    if said.exif and len(said.exif) <= headers.METADATA_LIMIT and said.exif[:4] in (b"II*\0", b"MM\0*"):
        orientation, exif = orientation_of(said.exif)
    pixels = np.ascontiguousarray(np.atleast_3d(turn_upright(pixels, orientation)))
    icc, lost = said.icc, said.lost
    if icc is not None and not headers.profile_fits(icc, pixels.shape[2]):
        icc, lost = None, (*lost, "ICC profile, which is of another colour space")
    return Picture(key, pixels, replace(said, orientation=orientation, icc=icc, exif=exif, lost=lost))


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn the pixels (H x W or H x W x C) of a file with EXIF `orientation` (1..8) so that up is up.

    OpenCV drops a last axis of one; the result may lack it.
    """
    if orientation == 1:
        return pixels
    # OpenCV drops a last axis of one, so it is put back by whoever needs it.
    pixels = np.ascontiguousarray(pixels)
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    return cv2.flip(pixels, flips[orientation]) if orientation in flips else pixels
