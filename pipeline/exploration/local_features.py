"""Local features of pictures, and whether two pictures show the same thing in part: what finds crops.

SIFT (Lowe 2004) with square-rooted descriptors (Arandjelović and Zisserman 2012). The features of a mirrored picture
are those of the picture with the descriptors' bins in another order, so mirrored copies cost nothing to look for.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

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
