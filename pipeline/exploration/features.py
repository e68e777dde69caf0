"""What exploring keeps of a picture: something to show, something to compare by, something to give a network.

Every picture is read and decoded once.

Local features, by which crops are found, are SIFT (Lowe 2004) with square-rooted descriptors (Arandjelović and
Zisserman 2012). Those of a mirrored picture are those of the picture with the descriptors' bins in another order, so
mirrored copies cost nothing to look for.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from PIL import Image

from pipeline.destination.plans import SourcePicture
from pipeline.errors import PictureError, StorageError
from pipeline.frames.shared_file import SharedFile
from pipeline.networks.encoders import model_input
from pipeline.pictures.decode import decode
from pipeline.pictures.perceptual_hash import perceptual_hash
from pipeline.pictures.picture import Picture, over_white, to_8bit
from pipeline.shards.memory import MemoryBudget, memory_for_pictures
from pipeline.storage.store import Store, read
from pipeline.threads import cores

#: features kept of a picture, the strongest
MOST_FEATURES = 150
#: nearest must be so much nearer than the second nearest for a match
_RATIO = 0.8
#: matches that agree on one similarity transform, at least, and pixels by which they may miss it
FEWEST_AGREEING = 10
_TOLERANCE = 4.0
#: how much one picture may be enlarged in the other
_LARGEST_SCALE = 5.0


@dataclass(frozen=True)
class LocalFeatures:
    """M places (x, y) float32 in pixels of a small copy of that `width`, and M descriptors of 128 uint8."""

    points: np.ndarray
    descriptors: np.ndarray
    width: int


def local_features(luma: np.ndarray) -> LocalFeatures:
    """The strongest features of H x W uint8."""
    # a low threshold, for soft pictures have corners too
    sift = cv2.SIFT.create(nfeatures=MOST_FEATURES, contrastThreshold=0.02)
    places, descriptors = sift.detectAndCompute(luma, None)
    if descriptors is None:
        return LocalFeatures(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8), luma.shape[1])
    rooted = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
    points = np.array([place.pt for place in places], np.float32)
    return LocalFeatures(points, np.rint(255 * rooted).astype(np.uint8), luma.shape[1])


def mirrored(features: LocalFeatures) -> LocalFeatures:
    """The features of the picture's mirror image, left and right exchanged."""
    places = features.points.copy()
    places[:, 0] = features.width - 1 - places[:, 0]
    # a descriptor is 4 rows x 4 columns x 8 directions around its own direction, which the mirror leaves in place
    bins = features.descriptors.reshape(-1, 4, 4, 8)[:, ::-1, :, (-np.arange(8)) % 8]
    return LocalFeatures(places, bins.reshape(-1, 128), features.width)


def agreeing(one: LocalFeatures, other: LocalFeatures) -> int:
    """How many features of two pictures match and agree on one shift, turn and scale; 0 where too few match."""
    pairs = _matches(one.descriptors, other.descriptors)
    if len(pairs) < FEWEST_AGREEING // 2:
        return 0
    transform, inside = cv2.estimateAffinePartial2D(
        one.points[pairs[:, 0]], other.points[pairs[:, 1]], ransacReprojThreshold=_TOLERANCE, maxIters=1000
    )
    if transform is None:
        return 0
    scale = float(np.hypot(transform[0, 0], transform[0, 1]))
    if not 1 / _LARGEST_SCALE <= scale <= _LARGEST_SCALE:
        return 0
    kept = pairs[inside.ravel() == 1]
    # many features at one spot agree on anything
    spots = {tuple(spot) for spot in (one.points[kept[:, 0]] // 8).astype(int).tolist()}
    return min(len(kept), len(spots))


def _matches(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pairs of rows, K x 2, that are each other's nearest, and by far."""
    if len(one) < 2 or len(other) < 2:
        return np.empty((0, 2), np.int64)
    products = one.astype(np.float32) @ other.astype(np.float32).T
    rows, nearest = np.arange(len(one)), products.argmax(axis=1)
    mutual = products.argmax(axis=0)[nearest] == rows
    # every descriptor is of length 255, but for rounding, so that products say how far two are apart
    first = 2 * (255.0**2 - products[rows, nearest])
    products[rows, nearest] = -np.inf
    good = mutual & (first < _RATIO**2 * 2 * (255.0**2 - products.max(axis=1)))
    return np.stack([rows[good], nearest[good]], axis=1)


#: longest side of thumbnails
THUMBNAIL = 112
#: side of the small luma that whole pictures are compared by
SMALL = 32
#: pixels of the luma that local features are found in, on its longest side
_DETAIL = 400
#: what a pixel of a decoded picture in work takes
_BYTES_PER_PIXEL = 12


@dataclass(frozen=True)
class Look:
    """One picture, seen once.

    `thumbnail` is a WebP file; `luma` 32 x 32 float32 in 0..255, of the whole picture squeezed to a square; `colour`
    the mean of R, G, B in 0..255; `hash` and `mirrored_hash` the perceptual hashes of the picture and its mirror image;
    `features` local ones (None where not asked for); `model_input` C x H x W uint8 for the network (None likewise).
    """

    width: int
    height: int
    thumbnail: bytes
    luma: np.ndarray
    colour: np.ndarray
    hash: int
    mirrored_hash: int
    features: LocalFeatures | None
    model_input: np.ndarray | None


def look_at_all(
    store: Store,
    pictures: Sequence[SourcePicture],
    pixel_limit: int,
    shape: tuple[int, int, int] | None,
    with_features: bool,
    seen: Callable[[int], None] = lambda count: None,
    memory: str | None = None,
) -> dict[str, Look]:
    """A look at every picture of a store, by key; without those that are gone or cannot be read now.

    `shape` is C, H, W of the network's pictures; `seen` is told how many more are done; `memory` is as in a request.
    Raises StorageError when the store does not answer at all.
    """
    files: dict[str, list[SourcePicture]] = {}
    for one in pictures:
        files.setdefault(one.object_key, []).append(one)
    looked = partial(_from_file, store, pixel_limit, shape, with_features, MemoryBudget(memory_for_pictures(memory)))
    found: dict[str, Look] = {}
    threads = cv2.getNumThreads()
    # OpenCV's own threads would fight with ours
    cv2.setNumThreads(1)
    try:
        with ThreadPoolExecutor(cores() + 2, thread_name_prefix="look") as workers:
            for looks in workers.map(looked, files.values()):
                found |= looks
                seen(len(looks))
    finally:
        cv2.setNumThreads(threads)
    return found


def look_at(picture: Picture, shape: tuple[int, int, int] | None, with_features: bool) -> Look:
    """A look at a decoded picture; see `look_at_all`."""
    pixels = over_white(to_8bit(picture.pixels))
    height, width, channels = pixels.shape
    luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if channels == 3 else pixels[:, :, 0]
    given = None if shape is None else (model_input(picture, shape) * 255).round().to(torch.uint8).numpy()
    return Look(
        width,
        height,
        thumbnail(pixels),
        cv2.resize(luma, (SMALL, SMALL), interpolation=cv2.INTER_AREA).astype(np.float32),
        np.broadcast_to(pixels.mean(axis=(0, 1), dtype=np.float64), 3).astype(np.float32),
        int(perceptual_hash(pixels), 16),
        int(perceptual_hash(np.ascontiguousarray(pixels[:, ::-1])), 16),
        local_features(_within(luma, _DETAIL)) if with_features else None,
        given,
    )


def thumbnail(pixels: np.ndarray, side: int = THUMBNAIL) -> bytes:
    """Pixels H x W x 1|3 uint8 as a WebP file, no side over `side`; pictures that are smaller keep their size."""
    small = _within(pixels, side)
    image = Image.fromarray(small[:, :, 0] if small.ndim == 3 and small.shape[2] == 1 else small)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue()


def _within(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return np.ascontiguousarray(small.reshape(size[1], size[0], *pixels.shape[2:]))


def _from_file(
    store: Store,
    pixel_limit: int,
    shape: tuple[int, int, int] | None,
    with_features: bool,
    memory: MemoryBudget,
    pictures: Sequence[SourcePicture],
) -> dict[str, Look]:
    """Looks at the pictures that are in one object, frames in their order."""
    found = {}
    for one, picture in _decoded(store, pixel_limit, sorted(pictures, key=lambda one: one.frame or 0)):
        taken = memory.take(_BYTES_PER_PIXEL * picture.pixels.shape[0] * picture.pixels.shape[1])
        try:
            found[one.key] = look_at(picture, shape, with_features)
        finally:
            memory.give_back(taken)
    return found


def _decoded(
    store: Store, pixel_limit: int, pictures: Sequence[SourcePicture]
) -> Iterator[tuple[SourcePicture, Picture]]:
    numbers = [one.frame for one in pictures if one.frame is not None]
    file = SharedFile(store, pictures[0].object_key, pictures[0].size, numbers, pixel_limit) if numbers else None
    try:
        for one in pictures:
            try:
                if file is None or one.frame is None:
                    yield one, decode(read(store, one.key), one.key, pixel_limit)
                else:
                    file.fetch()
                    yield one, file.read(one.frame, one.key).picture
            except PictureError:
                continue
            except StorageError as error:
                if error.kind == "unreachable":
                    raise
    finally:
        if file is not None:
            file.close()
