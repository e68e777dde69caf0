"""Picture files that say all that their format can say, made with other libraries than those that are tested."""

from __future__ import annotations

import io
import struct
import zlib
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from tests.picture_files import save, smooth, srgb_profile

XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" '
    b'tiff:ImageWidth="48"><dc:rights>Someone</dc:rights></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
#: a caption and a keyword
IPTC = b"\x1c\x02\x78\x00\x05Lakes\x1c\x02\x19\x00\x06castle"
TEXT = ("Copyright", "Someone")
WIDTH, HEIGHT, DPI = 48, 40, 300
#: BT.2020 with PQ
PQ = (9, 16)


def exif(orientation: int = 6, resolution: bool = True) -> Image.Exif:
    """EXIF of a camera that was held upright, with a thumbnail of the lying picture."""
    block = Image.Exif()
    block[271] = "Camera"
    block[274] = orientation
    if resolution:
        block[282] = block[283] = TiffImagePlugin.IFDRational(DPI)
        block[296] = 2
    block[0x8769] = {0xA002: WIDTH, 0xA003: HEIGHT, 0x9003: "2026:01:02 03:04:05"}
    return block


def with_thumbnail(block: bytes, thumbnail: bytes) -> bytes:
    """Add a second directory with a JPEG to a block, which is big-endian, as Pillow writes it."""
    assert block[:4] == b"MM\0*"
    (first,) = struct.unpack_from(">I", block, 4)
    (count,) = struct.unpack_from(">H", block, first)
    at = first + 2 + 12 * count
    second = len(block) + len(block) % 2
    entries = [(259, 3, 1, 6 << 16), (274, 3, 1, 6 << 16), (513, 4, 1, second + 54), (514, 4, 1, len(thumbnail))]
    directory = struct.pack(">H", 4) + b"".join(struct.pack(">HHII", *entry) for entry in entries) + bytes(4)
    return (
        block[:at] + struct.pack(">I", second) + block[at + 4 :].ljust(second - at - 4, b"\0") + directory + thumbnail
    )


def pixels(channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    return smooth(HEIGHT, WIDTH, channels, dtype)


def described_files() -> dict[str, bytes]:
    """A lying picture of each format that says: turn me, and all else that the format has a place for."""
    image = Image.fromarray(pixels())
    block = exif().tobytes()
    icc = srgb_profile()
    texts = PngImagePlugin.PngInfo()
    texts.add_text(*TEXT)
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    png = save(image, "PNG", exif=block, icc_profile=icc, dpi=(DPI, DPI), pnginfo=texts)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = 6
    tags.tagtype[33723] = 7
    tags[33723] = IPTC
    tags.tagtype[700] = 1
    tags[700] = XMP
    tags[271] = "Camera"
    # Pillow turns a TIFF while it writes it, if it has been told so by its EXIF
    return {
        "jpeg": _with_iptc(save(image, "JPEG", exif=block, icc_profile=icc, xmp=XMP, dpi=(DPI, DPI), comment=b"Hello")),
        "png": png[:33] + _chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(_raw_profile())) + png[33:],
        "webp": save(image, "WEBP", exif=block, icc_profile=icc, xmp=XMP),
        "tiff": save(image, "TIFF", tiffinfo=tags, icc_profile=icc, dpi=(DPI, DPI)),
        "avif": save(image, "AVIF", exif=block, icc_profile=icc, xmp=XMP),
        "jpeg2000": _with_boxes(save(image, "JPEG2000"), icc, exif(1).tobytes()),
        "gif": save(image.quantize(64), "GIF", comment=b"Hello"),
        "bmp": save(image, "BMP", dpi=(DPI, DPI)),
        "psd": _psd(icc),
        **_of_extras(image, block, icc),
    }


def _of_extras(image: Image.Image, block: bytes, icc: bytes) -> dict[str, bytes]:
    """Files of formats whose libraries are extras, where these are installed."""
    files: dict[str, bytes] = {}
    if find_spec("pillow_heif"):
        heif = import_module("pillow_heif").from_pillow(image)
        file = io.BytesIO()
        heif.save(file, quality=90, exif=block, xmp=XMP, icc_profile=icc)
        files["heif"] = file.getvalue()
    if find_spec("pillow_jxl"):
        import_module("pillow_jxl")
        # the box of EXIF begins with an offset, which the plugin leaves to whoever calls it
        upright = bytes(4) + exif(1).tobytes().removeprefix(b"Exif\0\0")
        files["jpeg_xl"] = save(image, "JXL", exif=upright, xmp=XMP, lossless=True)
    return files


def tagged_png(cicp: tuple[int, int] | None = None, gamma: float | None = None, dtype: type = np.uint8) -> bytes:
    """A PNG that says of its colours what a colour tag says."""
    chunks = _chunk(b"cICP", bytes([*cicp, 0, 1])) if cicp else b""
    chunks += _chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000))) if gamma else b""
    rows = pixels(3, dtype).astype(">u2" if dtype == np.uint16 else np.uint8)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8 * rows.itemsize, 2, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), chunks, _chunk(b"IDAT", zlib.compress(data)), _chunk(b"IEND", b"")]
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts])


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _resource() -> bytes:
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)


def _raw_profile() -> bytes:
    return f"\niptc\n{len(_resource()):8}\n{_resource().hex()}\n".encode()


def _with_iptc(jpeg: bytes) -> bytes:
    body = b"Photoshop 3.0\0" + _resource()
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def _with_boxes(jp2: bytes, icc: bytes, block: bytes) -> bytes:
    """Add a profile, a display resolution, EXIF, XMP and IPTC to a JP2 file of Pillow's."""

    def box(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", len(body) + 8, name) + body

    resolution = box(b"res ", box(b"resd", struct.pack(">HHHHbb", 11811, 1, 11811, 1, 0, 0)))
    at = jp2.index(b"jp2h") - 4
    end = at + int.from_bytes(jp2[at : at + 4], "big")
    header = jp2[at + 8 : end]
    colour = header.index(b"colr") - 4
    size = int.from_bytes(header[colour : colour + 4], "big")
    header = header[:colour] + box(b"colr", b"\2\0\0" + icc) + header[colour + size :] + resolution
    uuids = (
        b"JpgTiffExif->JP2" + block.removeprefix(b"Exif\0\0"),
        bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMP,
        bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38") + IPTC,
    )
    return jp2[:at] + box(b"jp2h", header) + b"".join(box(b"uuid", body) for body in uuids) + jp2[end:]


def _psd(icc: bytes) -> bytes:
    """A flat PSD of three channels, with a profile, XMP, IPTC and a resolution."""

    def resource(kind: int, body: bytes) -> bytes:
        return b"8BIM" + struct.pack(">HHI", kind, 0, len(body)) + body + bytes(len(body) % 2)

    resolution = struct.pack(">IHHIHH", DPI << 16, 1, 1, DPI << 16, 1, 1)
    resources = b"".join([
        resource(0x040F, icc), resource(0x0424, XMP), resource(0x0404, IPTC), resource(0x03ED, resolution)
    ])  # fmt: skip
    head = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, HEIGHT, WIDTH, 8, 3) + bytes(4)
    planes = pixels().transpose(2, 0, 1).tobytes()
    return head + struct.pack(">I", len(resources)) + resources + bytes(4) + b"\0\0" + planes


def opened(data: bytes) -> Image.Image:
    """A file as Pillow sees it, loaded."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
