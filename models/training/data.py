"""Training pictures: read once from any fsspec URL, kept decoded in memory, served as augmented crops."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from models.errors import DataError, TooLargeError
from models.files import PLAIN, Files, Found

#: bytes of a picture file; larger ones count as unreadable
FILE_LIMIT = 512 << 20
#: most held-out pictures that a validation looks at, and those of one batch of them
HELD_OUT, HELD_OUT_BATCH = 32, 8


#: a picture's URL or key, and why it is not trained on: a word or two, then perhaps a colon and what exactly is wrong
LeftOut = tuple[str, str]


@dataclass(frozen=True)
class Decoder:
    """How picture files are read: those whose names end in `suffixes` are taken for pictures, all others are passed by.

    `decode` makes H x W x 3 uint8 RGB of a file's bytes and its key, or a sentence that says what is wrong with it.
    """

    suffixes: tuple[str, ...]
    decode: Callable[[bytes, str], np.ndarray | str]


def _decode_plainly(data: bytes, key: str) -> np.ndarray | str:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return error.err
    return "no picture that OpenCV reads" if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


#: what reads pictures where nothing is handed in
OPENCV = Decoder((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"), _decode_plainly)


class PictureSource(Protocol):
    """What training draws from: batches, N x C x H x W uint8, of crops `crop` pixels a side or of whole pictures."""

    @property
    def train(self) -> Sized:
        """The pictures that are drawn from."""

    @property
    def mark(self) -> str:
        """The `pictures_mark` of all that is trained on or held out; empty where it is not known."""

    @property
    def listed(self) -> int:
        """Number of pictures that were found, those left out included."""

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Pictures that were found and are not used."""

    def draw(self, count: int, crop: int, generator: np.random.Generator) -> Tensor:
        """Draw `count` pictures or crops to train on, the same for the same generator."""

    def held_out_batches(self, crop: int) -> list[Tensor]:
        """Return batches of pictures that are never drawn, always the same."""

    def training_batches(self, crop: int) -> list[Tensor]:
        """Return batches of pictures that are drawn, always the same, to be scored like the held-out ones, or none."""


@dataclass(frozen=True)
class TrainingSet:
    """Decoded pictures, H x W x 3 uint8 RGB each, split by their keys so that a restart splits them alike.

    `mark`, `listed` and `left_out` are those of `PictureSource`.
    """

    train: list[np.ndarray]
    held_out: list[np.ndarray]
    left_out: tuple[LeftOut, ...] = ()
    mark: str = ""
    listed: int = 0

    def draw(self, count: int, crop: int, generator: np.random.Generator) -> Tensor:
        """Draw crops to train on, count x 3 x crop x crop uint8, as `random_crops` does."""
        return random_crops(self.train, count, crop, generator)

    def held_out_batches(self, crop: int) -> list[Tensor]:
        """Return the middles of 32 held-out pictures at most, in batches N x 3 x crop x crop uint8."""
        return list(centre_crops(self.held_out[:HELD_OUT], crop).split(HELD_OUT_BATCH))

    def training_batches(self, crop: int) -> list[Tensor]:
        """Return no batches: scoring large crops takes as long as many steps."""
        return []


def read_training_set(
    urls: tuple[str, ...],
    *,
    held_out: float = 0.05,
    smallest: int = 64,
    memory_limit: int = 8 << 30,
    files: Files = PLAIN,
    decoder: Decoder = OPENCV,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingSet:
    """Read every picture below the URLs, through `files` and `decoder`.

    A share `held_out` of the pictures, chosen by the hash of their names, is kept for validation. Pictures smaller
    than `smallest` on a side, unreadable ones and files over 512 MiB are left out, with the reason. Raises DataError
    when nothing is found or the decoded pictures would exceed `memory_limit` bytes, and what `files` raise when the
    sources cannot be listed.
    """
    found = [one for url in urls for one in files.find(url) if one.key.lower().endswith(decoder.suffixes)]
    if not found:
        raise DataError(f"no pictures below {', '.join(urls)}: looked for {', '.join(decoder.suffixes)}")
    train: list[np.ndarray] = []
    validation: list[np.ndarray] = []
    left_out: list[LeftOut] = []
    used: list[tuple[str, str]] = []
    total = 0
    read_one = partial(read_picture, files=files, decoder=decoder)
    # closing takes back what is not read yet, so that an error or Ctrl-C need not wait for all of it
    with ThreadPoolExecutor(8) as pool, closing(pool.map(read_one, found)) as decoded:  # type: ignore[type-var]
        for count, (one, read) in enumerate(zip(found, decoded, strict=True)):
            if progress:
                progress(count + 1, len(found))
            pixels = read.pixels
            if pixels is None:
                left_out.append((one.url, read.fault))
                continue
            if min(pixels.shape[:2]) < smallest:
                left_out.append((one.url, f"smaller than {smallest} pixels"))
                continue
            used.append((one.key, read.digest))
            total += pixels.nbytes
            if total > memory_limit:
                raise DataError(
                    f"the decoded pictures exceed {memory_limit >> 20} MiB; train on fewer or raise the memory limit"
                )
            (validation if share_of_name(one.key) < held_out else train).append(pixels)
    if not train and not validation:
        raise DataError(f"none of {len(found)} pictures could be used: {reasons(left_out)}; give others")
    # a lone picture is trained on and held out, whatever its name
    return TrainingSet(train or validation, validation or train[:1], tuple(left_out), pictures_mark(used), len(found))


def pictures_mark(used: Iterable[tuple[str, str]]) -> str:
    """Tell sets of pictures apart: the SHA-256 of the sorted keys and digests of these.

    A key is a picture's path below its source, a digest that of the bytes it is stored as; so a set that was moved or
    copied keeps its mark, and one with other pictures of the same names and sizes does not.
    """
    lines = sorted(json.dumps(pair) for pair in used)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def reasons(left_out: Iterable[LeftOut]) -> str:
    """Count what comes before the colon of reasons, the most frequent first: "9 unreadable, 3 too large"."""
    counts = Counter(reason.partition(":")[0] for _, reason in left_out)
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())


def random_crops(pictures: list[np.ndarray], count: int, size: int, generator: np.random.Generator) -> Tensor:
    """Draw crops with flips, quarter turns and, half of the time, area reduction: count x 3 x size x size uint8.

    Pictures are drawn in proportion to their pixels; one smaller than the crop is mirrored at its edges.
    """
    areas = np.array([p.shape[0] * p.shape[1] for p in pictures], float)
    chosen = generator.choice(len(pictures), count, p=areas / areas.sum())
    crops = [_crop(pictures[i], size, generator) for i in chosen]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)


def centre_crops(pictures: list[np.ndarray], size: int) -> Tensor:
    """Cut the middle out of every picture, N x 3 x size x size uint8, for validation."""
    crops = []
    for picture in pictures:
        picture = _at_least(picture, size)
        top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
        crops.append(picture[top : top + size, left : left + size])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)


def _crop(picture: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    factor = generator.uniform(1, 2) if generator.random() < 0.5 else 1.0
    window = min(int(size * factor), *picture.shape[:2]) if factor > 1 else size
    window = max(window, size)
    picture = _at_least(picture, window)
    top = generator.integers(picture.shape[0] - window + 1)
    left = generator.integers(picture.shape[1] - window + 1)
    crop = picture[top : top + window, left : left + window]
    if window != size:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    crop = np.rot90(crop, int(generator.integers(4)))
    return np.ascontiguousarray(crop[:, ::-1] if generator.random() < 0.5 else crop)


def _at_least(picture: np.ndarray, size: int) -> np.ndarray:
    bottom, right = max(0, size - picture.shape[0]), max(0, size - picture.shape[1])
    return cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REFLECT) if bottom or right else picture


@dataclass(frozen=True)
class ReadPicture:
    """A picture file: `pixels`, H x W x 3 uint8 RGB, or the `fault` that left it without; SHA-256 of its bytes."""

    pixels: np.ndarray | None
    fault: str = ""
    digest: str = ""


def read_picture(found: Found, files: Files = PLAIN, decoder: Decoder = OPENCV) -> ReadPicture:
    """Read and decode a picture file of at most 512 MiB; whatever keeps it from being read is its fault."""
    try:
        data = files.read(found.url, FILE_LIMIT, found.size)
    except TooLargeError:
        return ReadPicture(None, f"larger than {FILE_LIMIT >> 20} MiB")
    except files.faults as error:
        return ReadPicture(None, f"unreadable: {error}")
    if data is None:
        return ReadPicture(None, "unreadable: it is no longer there")
    decoded = decoder.decode(data, found.key)
    if isinstance(decoded, str):
        return ReadPicture(None, f"unreadable: {decoded}")
    return ReadPicture(decoded, "", hashlib.sha256(data).hexdigest())


def share_of_name(path: str) -> float:
    """Return a number in 0..1 that is decided by the file's name alone."""
    return int.from_bytes(hashlib.sha256(path.rsplit("/", 1)[-1].encode()).digest()[:4], "big") / 2**32
