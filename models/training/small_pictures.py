"""Whole small pictures in memory: MNIST's files, sheets of tiles with an index, or any folder or bucket, resized."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from models.errors import DataError, TooLargeError
from models.files import PLAIN, Files, Found
from models.training.data import (
    FILE_LIMIT,
    OPENCV,
    Decoder,
    LeftOut,
    ReadPicture,
    read_picture,
    reasons,
    share_of_name,
)

#: longest side of a small picture
SIDE_LIMIT = 1024
#: share of a folder's pictures that count as its test pictures
TEST_SHARE = 0.05
_IDX_PICTURES = re.compile(r"(train|t10k)-images[-.]idx3-ubyte(\.gz)?$")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SmallPictures:
    """Pictures of one shape: N x C x H x W uint8, RGB or grey.

    `labels` are int64 indices into `classes`, or None; `names` tell pictures apart: a key below its source, or the
    split and number where one file holds many. `digests`, one a picture, are SHA-256 of the files they come from;
    `left_out` are pictures that were found and could not be used.
    """

    pictures: Tensor
    labels: Tensor | None
    names: list[str]
    classes: list[str]
    digests: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures)

    def at(self, rows: list[int]) -> SmallPictures:
        """Return the pictures of these rows alone."""
        labels = None if self.labels is None else self.labels[rows]
        digests = tuple(self.digests[row] for row in rows) if self.digests else ()
        names = [self.names[row] for row in rows]
        return SmallPictures(self.pictures[rows], labels, names, self.classes, digests)


def read_small_pictures(
    urls: str | tuple[str, ...],
    shape: tuple[int, int, int],
    *,
    train: bool | None = None,
    limit: int | None = None,
    memory_limit: int = 8 << 30,
    files: Files = PLAIN,
    decoder: Decoder = OPENCV,
    progress: Progress | None = None,
) -> SmallPictures:
    """Read every picture below the URLs, made C x H x W (C 1 or 3) by `resized`; several URLs are read as one.

    A URL holds MNIST's four idx files, gzipped or not, in any folder below it; or an `index.json` of sheets of tiles,
    `{"tile": side, "columns": n, "classes": [...], "sheets": {file: {"split", "label", "count", "files"}}}`; or else
    pictures in any folders, whose class is the first folder below the URL (no labels where one lies outside of any).
    `train` True or False gives one split, None both: idx files and sheets have their own, in folders a share of 0.05,
    by the hash of names, is the test split. `limit` takes that many of every URL, chosen by hash. Unreadable pictures
    are left out, with the reason. Raises DataError for a shape out of bounds, damaged idx files or sheets, nothing
    found, or more than `memory_limit` bytes; what `files` raise when the sources cannot be read.
    """
    _check_shape(shape)
    sources = (urls,) if isinstance(urls, str) else urls
    read: list[SmallPictures] = []
    for url in sources:
        room = memory_limit - sum(part.pictures.numel() for part in read)
        read.append(_read_url(url, _Wanted(shape, train, limit, room, progress, files, decoder)))
    return joined(read)


def split_by_name(pictures: SmallPictures, held_out: float, least: int = 1) -> tuple[SmallPictures, SmallPictures]:
    """Split pictures by the hash of their names into the rest and a share `held_out` of `least` pictures at least."""
    # salted, so that it is not the same share again that is a folder's test split
    shares = np.array([_salted(name, "held out") for name in pictures.names])
    inside = (shares < held_out) | (shares <= np.sort(shares)[:least][-1])
    return pictures.at(np.flatnonzero(~inside).tolist()), pictures.at(np.flatnonzero(inside).tolist())


def resized(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Resize a picture, H x W or H x W x 3 uint8, as a whole to C x h x w uint8, by area averages when it shrinks."""
    channels, height, width = shape
    if pixels.ndim == 3 and channels == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if pixels.shape[:2] != (height, width):
        smaller = pixels.shape[0] >= height and pixels.shape[1] >= width
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[:, :, None], (height, width, channels))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def check_memory(count: int, shape: tuple[int, int, int], limit: int) -> None:
    """Raise DataError when `count` pictures of a shape would exceed `limit` bytes."""
    if count * int(np.prod(shape)) > limit:
        raise DataError(
            f"{count:,} pictures of {' x '.join(map(str, shape))} exceed the {max(limit, 0) >> 20} MiB that are left; "
            "take fewer or smaller ones, or raise the memory limit"
        )


def stacked(pictures: Any, count: int, shape: tuple[int, int, int]) -> Tensor:
    """Resize `count` pictures, H x W or H x W x 3 uint8, and stack them: count x C x h x w uint8."""
    stack = torch.empty((count, *shape), dtype=torch.uint8)
    for place, picture in zip(stack, pictures, strict=True):
        place.numpy()[...] = resized(picture, shape)
    return stack


def joined(parts: list[SmallPictures]) -> SmallPictures:
    """Join sets of pictures of one shape; there are labels where every set has them."""
    if len(parts) == 1:
        return parts[0]
    classes = sorted({name for part in parts for name in part.classes})
    labels = [
        torch.tensor([classes.index(c) for c in part.classes])[part.labels] for part in parts if part.labels is not None
    ]
    return SmallPictures(
        torch.cat([part.pictures for part in parts]),
        torch.cat(labels) if len(labels) == len(parts) else None,
        [name for part in parts for name in part.names],
        classes if len(labels) == len(parts) else [],
        tuple(digest for part in parts for digest in part.digests),
        tuple(one for part in parts for one in part.left_out),
    )


def chosen(names: list[str], limit: int | None) -> list[int]:
    """Choose the rows of at most `limit` names, in order, by hash so that every folder has its part."""
    rows = list(range(len(names)))
    if limit is not None and limit < len(rows):
        rows = sorted(sorted(rows, key=lambda row: _salted(names[row], "limit"))[:limit])
    return rows


@dataclass(frozen=True)
class _Wanted:
    shape: tuple[int, int, int]
    train: bool | None
    limit: int | None
    memory: int
    progress: Progress | None
    files: Files
    decoder: Decoder

    def rows(self, names: list[str]) -> list[int]:
        """Choose the rows of these names that are taken, in order; raise DataError when they are too many."""
        rows = chosen(names, self.limit)
        check_memory(len(rows), self.shape, self.memory)
        return rows


def _check_shape(shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    if channels not in (1, 3) or not (1 <= height <= SIDE_LIMIT and 1 <= width <= SIDE_LIMIT):
        raise DataError(f"pictures of {shape}: the shape is 1 or 3 channels, then height and width up to {SIDE_LIMIT}")


def _read_url(url: str, wanted: _Wanted) -> SmallPictures:
    below = {found.key: found for found in wanted.files.find(url)}
    if any(_IDX_PICTURES.search(key) for key in below):
        return _read_idx_files(below, wanted)
    if "index.json" in below:
        return _read_sheets(below, wanted)
    pictures = {key: found for key, found in below.items() if key.lower().endswith(wanted.decoder.suffixes)}
    return _read_folder(pictures, url, wanted)


def _read_idx_files(below: dict[str, Found], wanted: _Wanted) -> SmallPictures:
    splits = {None: ("train", "t10k"), True: ("train",), False: ("t10k",)}[wanted.train]
    found = {match[1]: key for key in sorted(below, reverse=True) if (match := _IDX_PICTURES.search(key))}
    parts: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    digests: list[str] = []
    for split in (split for split in splits if split in found):
        key = found[split]
        pictures, digest = _idx(wanted.files, below[key], 3, wanted.memory)
        of_labels = key.replace("images", "labels").replace("idx3", "idx1")
        labels = _idx(wanted.files, below[of_labels], 1, wanted.memory)[0] if of_labels in below else None
        if labels is not None and len(labels) != len(pictures):
            raise DataError(
                f"{below[of_labels].url} has {len(labels)} labels for {len(pictures)} pictures; copy both again"
            )
        parts.append((split, pictures, labels))
        digests += [digest] * len(pictures)
    if not any(len(pictures) for _, pictures, _ in parts):
        raise DataError(
            f"there are no pictures of the split {splits[0]!r} beside {below[next(iter(found.values()))].url}"
        )
    names = [f"{split}/{number:05d}" for split, pictures, _ in parts for number in range(len(pictures))]
    rows = wanted.rows(names)
    sources = [picture for _, pictures, _ in parts for picture in pictures]
    known = [labels for _, _, labels in parts if labels is not None]
    labels = np.concatenate(known).astype(np.int64)[rows] if len(known) == len(parts) else None
    return SmallPictures(
        stacked((sources[row] for row in rows), len(rows), wanted.shape),
        None if labels is None else torch.from_numpy(labels),
        [names[row] for row in rows],
        [] if labels is None else [str(label) for label in range(int(max(map(np.max, known))) + 1)],
        tuple(digests[row] for row in rows),
    )


def _idx(files: Files, found: Found, dimensions: int, limit: int) -> tuple[np.ndarray, str]:
    """Read the bytes of an idx file in `dimensions` dimensions, and its SHA-256.

    It begins with two zeros, 8 for uint8, the number of dimensions, and their sizes big-endian.
    """
    data, path = _fetch(files, found), found.url
    head = 4 + 4 * dimensions
    try:
        unzip = zlib.decompressobj(31) if data[:2] == b"\x1f\x8b" else None
        start = unzip.decompress(data, head) if unzip else data[:head]
        if len(start) < head or start[:4] != bytes((0, 0, 8, dimensions)):
            raise DataError(f"{path} is not an idx file of {dimensions} dimensions of bytes; copy it again")
        sizes = [int.from_bytes(start[i : i + 4], "big") for i in range(4, head, 4)]
        if (total := int(np.prod(sizes, dtype=object))) > limit:
            raise DataError(f"{path} claims {total:,} bytes; raise the memory limit above that or copy it again")
        # one byte more than claimed, to notice when there are more
        rest = unzip.decompress(unzip.unconsumed_tail, total + 1) if unzip else data[head:]
    except zlib.error as error:
        raise DataError(f"{path} is damaged ({error}); copy it again") from error
    if len(rest) != total:
        raise DataError(f"{path} holds not the {total:,} bytes that it claims; copy it again")
    return np.frombuffer(rest, np.uint8).reshape(sizes), hashlib.sha256(data).hexdigest()


def _read_sheets(below: dict[str, Found], wanted: _Wanted) -> SmallPictures:
    where = below["index.json"].url
    try:
        index = json.loads(_fetch(wanted.files, below["index.json"]))
        side, columns, classes = int(index["tile"]), int(index["columns"]), [str(name) for name in index["classes"]]
        sheets = [
            (str(key), int(sheet["label"]), int(sheet["count"]), str(sheet["split"]), [str(f) for f in sheet["files"]])
            for key, sheet in index["sheets"].items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} does not describe sheets of tiles ({error!r}); mend it or remove it") from error
    split = {None: None, True: "train", False: "test"}[wanted.train]
    sheets = [sheet for sheet in sheets if split in (None, sheet[3])]
    for key, label, count, _, files in sheets:
        if key not in below or not 0 <= label < len(classes) or len(files) != count or not 1 <= side <= SIDE_LIMIT:
            raise DataError(f"{where}: the sheet {key!r} is missing, or its label, count or tiles are wrong; mend it")
    names = [f"{part}/{classes[label]}/{file}" for _, label, _, part, files in sheets for file in files]
    if not names:
        raise DataError(f"{where} has no sheets of the split {split!r}")
    rows, first, tiles = wanted.rows(names), 0, []
    for number, (key, label, count, _, _) in enumerate(sheets):
        inside = [row - first for row in rows if first <= row < first + count]
        found = read_picture(below[key], wanted.files, wanted.decoder)
        sheet = found.pixels
        if sheet is None or sheet.shape[1] < columns * side or sheet.shape[0] // side * columns < count or columns < 1:
            raise DataError(f"{below[key].url} cannot be read or is smaller than the {count} tiles it should have")
        tiles += [(_tile(sheet, tile, side, columns), label, found.digest) for tile in inside]
        first += count
        if wanted.progress:
            wanted.progress(number + 1, len(sheets))
    return SmallPictures(
        stacked((pixels for pixels, _, _ in tiles), len(tiles), wanted.shape),
        torch.tensor([label for _, label, _ in tiles]),
        [names[row] for row in rows],
        classes,
        tuple(digest for _, _, digest in tiles),
    )


def _tile(sheet: np.ndarray, number: int, side: int, columns: int) -> np.ndarray:
    top, left = number // columns * side, number % columns * side
    return sheet[top : top + side, left : left + side]


def _read_folder(below: dict[str, Found], url: str, wanted: _Wanted) -> SmallPictures:
    if not below:
        raise DataError(
            f"no pictures below {url}: looked for idx files, index.json and {', '.join(wanted.decoder.suffixes)}"
        )
    is_test = {name: share_of_name(name) < TEST_SHARE for name in below}
    names = [name for name in below if wanted.train is None or is_test[name] != wanted.train]
    if not names:
        split = "training" if wanted.train else "test"
        raise DataError(
            f"none of {len(below)} pictures below {url} is a {split} picture, as hashes of names decide; add more"
        )
    names = [names[row] for row in wanted.rows(names)]
    read = partial(_read_small, wanted)
    kept: list[str] = []
    left_out: list[LeftOut] = []
    pixels: list[np.ndarray] = []
    digests: list[str] = []
    # closing takes back what is not read yet, so that an error or Ctrl-C need not wait for all of it
    with ThreadPoolExecutor(4) as pool, closing(pool.map(read, [below[name] for name in names])) as decoded:  # type: ignore[type-var]
        for count, (name, picture) in enumerate(zip(names, decoded, strict=True)):
            if wanted.progress:
                wanted.progress(count + 1, len(names))
            if picture.pixels is None:
                left_out.append((name, picture.fault))
            else:
                kept.append(name)
                pixels.append(picture.pixels)
                digests.append(picture.digest)
    if not kept:
        raise DataError(f"none of {len(names)} pictures below {url} could be used: {reasons(left_out)}; give others")
    folders = [name.split("/")[0] if "/" in name else None for name in kept]
    classes = sorted({folder for folder in folders if folder})
    labels = None if None in folders else torch.tensor([classes.index(folder) for folder in folders if folder])
    return SmallPictures(
        torch.from_numpy(np.stack(pixels)),
        labels,
        kept,
        [] if labels is None else classes,
        tuple(digests),
        tuple(left_out),
    )


def _read_small(wanted: _Wanted, found: Found) -> ReadPicture:
    read = read_picture(found, wanted.files, wanted.decoder)
    return read if read.pixels is None else replace(read, pixels=resized(read.pixels, wanted.shape))


def _fetch(files: Files, found: Found) -> bytes:
    try:
        data = files.read(found.url, FILE_LIMIT, found.size)
    except TooLargeError as error:
        raise DataError(f"{error}; give a smaller one") from error
    if data is None:
        raise DataError(f"{found.url} is no longer there; list the source again")
    return data


def _salted(name: str, salt: str) -> float:
    """Return a number in 0..1 that is decided by a picture's whole name and a salt."""
    return int.from_bytes(hashlib.sha256(f"{salt}/{name}".encode()).digest()[:4], "big") / 2**32
