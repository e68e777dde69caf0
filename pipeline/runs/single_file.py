"""One picture file to one `.drk` file and back, without a run: no tables, nothing but the file itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from models.codec.bitstream import EXTENSION, MAGIC, is_stream, read_header
from models.device import choose_device
from pipeline.errors import PictureError, RequestError
from pipeline.networks.batching import Batcher
from pipeline.networks.learned_codec import told_of_graphic, told_of_size
from pipeline.pictures.decode import decode
from pipeline.pictures.encode import encode
from pipeline.pictures.picture import Picture, parse_crop
from pipeline.pictures.seen import psnr_seen
from pipeline.requests.pictures import CompressRequest, DecompressRequest, RunRequest
from pipeline.requests.stores import names_folder, one_object
from pipeline.storage.store import StorageOptions, Store, locate, read, size, write

if TYPE_CHECKING:
    from models.codec.codec import Codec

#: files larger than this are refused before they are read
SIZE_LIMIT = 4 << 30
_FORMATS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".avif": "avif",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".jp2": "jpeg2000",
}


@dataclass(frozen=True)
class FileReport:
    """What became of one file; `bytes` are those of the file that was written.

    `stream_bytes`, `bpp` and `quality` are those of the `.drk` file, on whichever side it is. `psnr` in dB (colours,
    8-bit levels) where the picture it was made from is at hand. `damaged` and `omitted` say of the source what a run
    says in its manifest, `dropped` what the file that was written cannot hold, `warnings` why it is to be
    looked at.
    """

    source: str
    destination: str
    width: int
    height: int
    bytes: int
    stream_bytes: int
    bpp: float
    quality: float
    psnr: float | None
    seconds: float
    damaged: str | None = None
    omitted: str | None = None
    dropped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def is_file_to_file(request: RunRequest) -> bool:
    """Tell whether the request's source is one object, and its destination a file, no folder. Raises StorageError.

    A request that names a Prefect block for its access is one for a run.
    """
    if request.source_block or request.destination_block or names_folder(request.destination):
        return False
    return one_object(request) is not None


def compress_file(request: CompressRequest) -> FileReport:
    """Compress the picture at the request's source to its destination; the stream is decoded once before it is written.

    Raises PictureError (the message names the file), RequestError, ModelError, StorageError.
    """
    source, destination = _both_ends(request)
    if not destination[1].lower().endswith(f".{EXTENSION}"):
        better = f"{request.destination.removesuffix(PurePosixPath(destination[1]).suffix)}.{EXTENSION}"
        raise RequestError(
            f"{request.destination}: what compress writes is a .{EXTENSION} file; name it {better}, or end it "
            "with / for the folder of a run"
        )
    from pipeline.networks.streams import decode_with, encode_stream, open_codec, what_is_kept

    codec = open_codec(request.model)
    started = time.monotonic()
    data = _fetch(source, request.source)
    with Batcher(choose_device(request.device), request.batch) as device, _named(request.source):
        if is_stream(data):
            raise PictureError("unsupported", "a .drk stream already; give the picture it was made from")
        picture = decode(data, source[1], request.pixel_limit)
        if request.strict and picture.metadata.damage:
            raise PictureError("corrupt", picture.metadata.damage)
        length = len(data)
        del data
        stream, latent = encode_stream(codec, picture, request, device.apply)
        decoded = decode_with(codec, stream, source[1], device.apply, pixel_limit=request.pixel_limit)
    write(*destination, stream)
    return FileReport(
        request.source,
        request.destination,
        latent.width,
        latent.height,
        len(stream),
        len(stream),
        8 * len(stream) / (latent.width * latent.height),
        latent.quality / 16,
        psnr_seen(decoded.pixels, picture.pixels),
        time.monotonic() - started,
        picture.metadata.damage,
        picture.metadata.omitted,
        what_is_kept(picture).dropped,
        tuple(filter(None, (told_of_graphic(picture), told_of_size(len(stream), length)))),
    )


def decompress_file(request: DecompressRequest) -> FileReport:
    """Decompress the stream at the request's source, or the part its crop names, to a picture at its destination.

    Raises PictureError (the message names the file), RequestError, ModelError, StorageError.
    """
    source, destination = _both_ends(request)
    suffix = PurePosixPath(destination[1]).suffix.lower()
    named = _FORMATS.get(suffix)
    name = request.format or named
    if name is None:
        raise RequestError(
            f"{request.destination} ends in no format that is written; give --format, such as png, or end it "
            "with / for the folder of a run"
        )
    if named and named != name:
        raise RequestError(f"{request.destination} ends like {named}, --format says {name}; leave one of them out")
    from pipeline.networks.streams import open_codec

    codecs = [open_codec(model) for model in request.model]
    started = time.monotonic()
    data = _fetch(source, request.source)
    with Batcher(choose_device(request.device), request.batch) as device, _named(request.source):
        picture = _decompressed(data, source[1], request, codecs, device)
        encoded = encode(picture.pixels, picture.metadata, name)
    write(*destination, encoded.data)
    header = read_header(data, 1 << 64).header
    height, width = picture.pixels.shape[:2]
    return FileReport(
        request.source,
        request.destination,
        width,
        height,
        len(encoded.data),
        len(data),
        8 * len(data) / (header.width * header.height),
        header.quality / 16,
        None,
        time.monotonic() - started,
        dropped=encoded.dropped,
    )


def read_picture(url: str, options: StorageOptions | None = None, pixel_limit: int = 178_000_000) -> Picture:
    """Read the picture at a path or URL. Raises PictureError, whose message names it, and StorageError."""
    place = locate(url, options)
    data = _fetch(place, url)
    with _named(url):
        return decode(data, place[1], pixel_limit)


def _decompressed(
    data: bytes, key: str, request: DecompressRequest, codecs: Sequence[Codec], device: Batcher
) -> Picture:
    if not is_stream(data):
        raise PictureError("not_an_image", f"no .drk stream: it does not begin with {MAGIC!r}")
    crop = parse_crop(request.crop)
    from pipeline.networks.streams import decode_stream

    return decode_stream(data, key, device.apply, pixel_limit=request.pixel_limit, codecs=codecs, crop=crop)


def _both_ends(request: RunRequest) -> tuple[tuple[Store, str], tuple[Store, str]]:
    """Find store and key of source and destination. Raises RequestError where the two would be one, or no file."""
    source = locate(request.source, request.source_storage)
    destination = locate(request.destination, request.destination_storage)
    folder = destination[0].is_local and os.path.isdir(os.path.join(destination[0].root, destination[1]))
    if folder or not destination[1] or request.destination.endswith(("/", os.sep)):
        raise RequestError(f"{request.source} is one file, {request.destination} a folder; name a file there")
    if _address(*source) == _address(*destination) or _same_local_file(source, destination):
        raise RequestError(f"{request.destination} is the source itself; give the result another name")
    return source, destination


def _address(store: Store, key: str) -> tuple[str, str | None, str]:
    return store.scheme, store.options.endpoint, f"{store.root.rstrip('/')}/{key}"


def _same_local_file(one: tuple[Store, str], other: tuple[Store, str]) -> bool:
    """Tell whether two local names lead to one file, as hard links and file systems without upper case do."""
    paths = [os.path.join(store.root, key) for store, key in (one, other) if store.is_local]
    return len(paths) == 2 and all(map(os.path.exists, paths)) and os.path.samefile(*paths)


def _fetch(place: tuple[Store, str], url: str) -> bytes:
    length = size(*place)
    if length > SIZE_LIMIT:
        raise PictureError("too_large", f"{url}: {length:,} bytes; files over {SIZE_LIMIT:,} are not read")
    return read(*place, size=length)


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Let the message of a PictureError begin with the file it is about."""
    try:
        yield
    except PictureError as error:
        raise PictureError(error.reason, f"{url}: {error.message}") from error
