"""Decoding: from the bytes of a picture file to pixels and what the file said of them.

The format is taken from the first bytes, never from the name, and the size from the header, before anything is
allocated. Ordinary 8-bit JPEGs go to libjpeg-turbo, which says what is damaged; 16-bit colour PNG, TIFF and JPEG 2000
and 10/12-bit AVIF, which Pillow cuts down to 8 bits, go to OpenCV. All else goes to Pillow.

Decisions that are not obvious:

- Palettes become RGB (with alpha where an entry is transparent); a colour key (PNG tRNS, GIF) becomes alpha.
- CMYK becomes sRGB, through the embedded profile where it is a usable CMYK profile, else by (1 - ink) * (1 - black).
  Lab becomes sRGB. The profile is then dropped, for it no longer describes the pixels.
- A profile of RGB or grey pixels is kept and the pixels are left unconverted. A profile of another colour space than
  the pixels is dropped.
- Samples of more than 8 bits are scaled to 0..65535. Float TIFF (32 bits) too: values within 0..1 are taken as the
  full range, anything else is stretched from its least to its greatest finite value; NaN is taken as 0.
- A JPEG that lacks only its end marker, with every pixel there, is a good picture.
- 16-bit CMYK TIFF is read with 8 bits; `bit_depth` says 16.
"""

from __future__ import annotations

import io
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
    ImageCms,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    PsdImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pipeline.errors import PictureError
from pipeline.pictures import headers, jpeg, tiff
from pipeline.pictures.metadata.read import describe
from pipeline.pictures.picture import Metadata, Picture, Reserve, at_once, unpremultiply

#: Most scans of a progressive JPEG. Encoders write about ten; thousands over a large canvas take minutes to decode.
SCAN_LIMIT = 200

# What OpenCV would print of a bad file is raised here as a PictureError.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_CHANNELS = {"L": "grey", "LA": "grey+alpha", "RGB": "rgb", "RGBA": "rgb+alpha"}


class _Tiff(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF reader without its own turning upright, which would parse all metadata again, with warnings."""

    def load_end(self) -> None:
        self._size = self.im.size


_READERS: dict[str, Any] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "tiff": _Tiff,
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
        picture = picture or _decode_with_pillow(data, name, key, pixel_limit, reserve)
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


def _decode_with_pillow(data: bytes, name: str, key: str, pixel_limit: int, reserve: Reserve) -> Picture:
    depth, icc, all_grey = _early_checks(data, name, pixel_limit, reserve)
    with tiff.no_warnings():
        im = _READERS[name](io.BytesIO(data))
        exif = _exif(im, name)
    _check_size(im.size[0] * im.size[1], pixel_limit)
    if name == "tiff":
        depth = max(im.tag_v2.get(258, (1,)))
        _check_strips(im, len(data))
    elif im.mode == "1":
        depth = 1
    elif name == "ppm" and im.mode == "I":
        depth = 16
    # palettes become RGB, with alpha or without; samples of more than 8 bits, and floats, two bytes
    deeper = depth > 8 or im.mode.startswith(("I", "F"))
    reserve(im.size[0] * im.size[1], (4 if im.mode in ("P", "PA") else len(im.getbands())) * (2 if deeper else 1))
    icc = icc or im.info.get("icc_profile")
    deep = _decode_deep(data, name, im, depth)
    if deep is None:
        pixels, mode = _pixels_of(im, name, depth, icc, data)
    else:
        pixels, mode = deep, _CHANNELS[("L", "LA", "RGB", "RGBA")[deep.shape[2] - 1]]
    if all_grey and mode in ("rgb", "rgb+alpha"):
        pixels, mode = (pixels[:, :, [0, 3]], "grey+alpha") if mode == "rgb+alpha" else (pixels[:, :, :1], "grey")
    if mode in ("cmyk", "lab"):
        icc = None
    header = headers.jpeg_header(data) if name == "jpeg" else None
    damage = jpeg.damage_of(data, header) if header else None
    xmp = im.info.get("xmp") if isinstance(im.info.get("xmp"), bytes) else None
    return _finish(key, pixels, Metadata(name, mode, depth, icc=icc, exif=exif, damage=damage, xmp=xmp))


def _early_checks(data: bytes, name: str, pixel_limit: int, reserve: Reserve) -> tuple[int, bytes | None, bool]:
    """Check the announced size and whether the file is cut, before it is opened.

    Returns bits a sample, the ICC profile where Pillow does not find it, and whether all samples are grey.
    """
    if name == "png" and data[12:16] == b"IHDR" and len(data) > 25:
        _check_size(int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big"), pixel_limit)
        return data[24], None, False
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


def _check_strips(im: Any, size: int) -> None:
    """Raise PictureError for a TIFF whose strips or tiles lie past the file's end, whatever libtiff makes of them."""
    for offsets, counts in ((273, 279), (324, 325)):
        ends = [a + b for a, b in zip(im.tag_v2.get(offsets, ()), im.tag_v2.get(counts, ()), strict=False)]
        # Old-style JPEG and some writers give byte counts that overshoot a little; only a missing start is sure.
        if any(start >= size for start in im.tag_v2.get(offsets, ())) or (ends and min(ends) > size):
            raise PictureError("truncated", "the TIFF's pixel data lie past the end of the file")


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

    The pixels are H x W x 3 or 4 (16-bit grey + alpha PNG: 2), uint16.
    """
    tags = im.tag_v2 if name == "tiff" else {}
    wanted = {
        "png": depth == 16 and im.mode in ("RGB", "RGBA"),
        "tiff": im.mode in ("RGB", "RGBA") and set(tags.get(258, ())) == {16} and set(tags.get(339, (1,))) == {1},
        "jpeg2000": depth > 8 and im.mode in ("RGB", "RGBA"),
        "avif": depth > 8,
    }
    if not wanted.get(name):
        return None
    if name == "tiff" and tags.get(284, 1) == 2:
        return _join_planes(data, im)
    if name == "png":
        samples = {2: 3, 4: 2, 6: 4}[data[25]]
        filters = im.size[1] if data[28] == 0 else 0
        headers.check_png(data, im.size[1] * im.size[0] * samples * 2 + filters)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        return None
    size = im._tile_size if name == "tiff" else im.size
    if (pixels.shape[1], pixels.shape[0]) != tuple(size):
        return None
    if name in ("avif", "jpeg2000"):
        pixels = _scale_to_16(pixels, depth)
    if name == "png" and data[25] == 4:
        return pixels[:, :, [0, 3]]
    if pixels.shape[2] == 4:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)
        return unpremultiply(pixels) if tags.get(338, (2,))[0] == 1 else pixels
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _join_planes(data: bytes, im: Any) -> np.ndarray:
    """Read each plane of a planar 16-bit TIFF as a grey picture and join them; OpenCV garbles such files."""
    with tiff.no_warnings():
        planes = [_Tiff(io.BytesIO(tiff.plane_file(data, im.tag_v2, i))) for i in range(im.tag_v2[277])]
    pixels = np.stack([np.asarray(plane).astype(np.uint16) for plane in planes[: len(im.mode)]], axis=2)
    return unpremultiply(pixels) if im.tag_v2.get(338, (2,))[0] == 1 and len(im.mode) == 4 else pixels


def _scale_to_16(values: np.ndarray, bits: int) -> np.ndarray:
    """Scale samples of 0..2^bits - 1 to the full range of uint16."""
    if bits == 16:
        return values.astype(np.uint16)
    top = (1 << bits) - 1
    return ((np.minimum(values, top).astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


def _pixels_of(im: Any, name: str, depth: int, icc: bytes | None, data: bytes) -> tuple[np.ndarray, str]:
    """Load a Pillow picture: return H x W (x C) uint8 or uint16, and the name of the file's colour model."""
    im.load()
    if im.mode in ("P", "PA"):
        return np.asarray(im.convert("RGBA" if im.has_transparency_data else "RGB")), "palette"
    if im.mode == "CMYK":
        return _cmyk_to_rgb(im, name, icc, data), "cmyk"
    if im.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return np.asarray(ImageCms.profileToProfile(im, lab, srgb, outputMode="RGB")), "lab"
    if im.mode in ("YCbCr", "RGBX"):
        return np.asarray(im.convert("RGB")), "rgb"
    if im.mode in ("La", "RGBa"):
        im = im.convert(im.mode.upper())
    if im.mode == "F":
        return _stretch(np.asarray(im)), "grey"
    colour_key = im.info.get("transparency")
    if im.mode == "1":
        # Here Pillow gives the colour key in 8 bits, for other depths in the file's own.
        im, depth = im.convert("L"), 8
    if im.mode.startswith("I;16") or (im.mode == "I" and name == "ppm"):
        pixels = _scale_16_bit_grey(im, name, depth)
    elif im.mode in _CHANNELS:
        pixels = np.asarray(im)
    else:
        raise PictureError("unsupported", f"{name} pictures of mode {im.mode} are not read")
    if colour_key is not None and im.mode not in ("LA", "RGBA"):
        pixels = _with_alpha(pixels, colour_key, depth)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return pixels, _CHANNELS[("L", "LA", "RGB", "RGBA")[channels - 1]]


def _scale_16_bit_grey(im: Any, name: str, depth: int) -> np.ndarray:
    values: np.ndarray = np.asarray(im).astype(np.uint16)
    if name == "jpeg2000":
        # Pillow has already shifted the samples to the top of 16 bits.
        values = values >> (16 - depth)
    if name in ("jpeg2000", "tiff"):
        values = _scale_to_16(values, depth)
    if name == "tiff" and im.tag_v2.get(262) == 0:
        values = 65535 - values
    return values


def _with_alpha(pixels: np.ndarray, colour_key: Any, depth: int) -> np.ndarray:
    """Add an alpha channel: 0 for pixels of the file's transparent colour, full for the others."""
    full = int(np.iinfo(pixels.dtype).max)
    levels = np.asarray(colour_key, np.int64) * (255 // ((1 << depth) - 1) if depth < 8 else 1)
    pixels = np.atleast_3d(pixels)
    alpha = np.where((pixels == levels).all(axis=2, keepdims=True), 0, full).astype(pixels.dtype)
    return np.concatenate([pixels, alpha], axis=2)


def _stretch(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=high, neginf=low)
    scaled = (values - low) / max(high - low, 1e-38)
    return np.rint(np.clip(scaled, 0, 1) * 65535).astype(np.uint16)


def _cmyk_to_rgb(im: Any, name: str, icc: bytes | None, data: bytes) -> np.ndarray:
    if name == "jpeg":
        header = headers.jpeg_header(data)
        # Pillow takes every CMYK JPEG as inverted; that is Adobe's convention, so only right with Adobe's marker.
        if header is not None and not header.adobe:
            im = Image.fromarray(255 - np.asarray(im), "CMYK")
    if icc and icc[16:20] == b"CMYK":
        try:
            source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
            intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
            return np.asarray(ImageCms.profileToProfile(im, source, srgb, intent, "RGB", flags=flags))
        except (ImageCms.PyCMSError, OSError):
            pass
    ink = 255 - np.asarray(im).astype(np.uint16)
    return ((ink[:, :, :3] * ink[:, :, 3:] + 127) // 255).astype(np.uint8)


def _finish(key: str, pixels: np.ndarray, said: Metadata) -> Picture:
    """Return the picture turned upright, its pixels contiguous, without metadata that cannot describe them."""
    orientation, exif = 1, None
    if said.exif and len(said.exif) <= headers.METADATA_LIMIT and said.exif[:4] in (b"II*\0", b"MM\0*"):
        orientation, exif = headers.exif_orientation(said.exif)
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
