"""What exploring keeps of a picture: something to show, something to compare by, something to give a network.

Every picture is read and decoded once, in shards as any run has them; their looks lie as rows of a table in the folder
of the exploration until that is written.

Local features, by which crops are found, are SIFT (Lowe 2004) with square-rooted descriptors (Arandjelović and
Zisserman 2012). Those of a mirrored picture are those of the picture with the descriptors' bins in another order, so
mirrored copies cost nothing to look for.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from PIL import Image

from pipeline.destination.layout import exploration_folder, part_path
from pipeline.destination.parquet import read_part
from pipeline.destination.plans import Plan, SourcePicture
from pipeline.destination.schemas import FAILURES, LOOKS
from pipeline.errors import RunError
from pipeline.exploration.anomalies.details import row_of_details
from pipeline.exploration.anomalies.patches import LONGEST
from pipeline.frames.shared_file import SharedFile
from pipeline.networks.encoders import model_input
from pipeline.pictures.perceptual_hash import perceptual_hash
from pipeline.pictures.picture import Picture, Reserve, to_8bit
from pipeline.pictures.transparency import shown
from pipeline.requests.job import Settings, check_darkroom, fields_of, here, recorded, version
from pipeline.requests.models import ExploreRequest
from pipeline.requests.stores import Access, beside_sources, stores_of
from pipeline.shards.memory import Cost
from pipeline.shards.picture import Developed, fail, open_picture
from pipeline.shards.stage_times import Laps
from pipeline.storage.files import below
from pipeline.storage.store import Store, StoredObject

if TYPE_CHECKING:
    from models.inference import Apply

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
    """Find the strongest features of H x W uint8."""
    # a low threshold, for soft pictures have corners too
    sift = cv2.SIFT.create(nfeatures=MOST_FEATURES, contrastThreshold=0.02)
    places, descriptors = sift.detectAndCompute(luma, None)
    if descriptors is None:
        return LocalFeatures(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8), luma.shape[1])
    rooted = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
    points = np.array([place.pt for place in places], np.float32)
    return LocalFeatures(points, np.rint(255 * rooted).astype(np.uint8), luma.shape[1])


def mirrored(features: LocalFeatures) -> LocalFeatures:
    """Return the features of the picture's mirror image, left and right exchanged."""
    places = features.points.copy()
    places[:, 0] = features.width - 1 - places[:, 0]
    # a descriptor is 4 rows x 4 columns x 8 directions around its own direction, which the mirror leaves in place
    bins = features.descriptors.reshape(-1, 4, 4, 8)[:, ::-1, :, (-np.arange(8)) % 8]
    return LocalFeatures(places, bins.reshape(-1, 128), features.width)


def agreeing(one: LocalFeatures, other: LocalFeatures) -> int:
    """Count how many features of two pictures match and agree on one shift, turn and scale; 0 where too few match."""
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
    """Find pairs of rows, K x 2, that are each other's nearest, and by far."""
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
#: what a picture in work takes for every byte of it
_COST = 4
#: raised when a look says something else than before
_VERSION = 3
#: rows that become Python objects at once
_ROWS = 256


@dataclass(frozen=True)
class Look:
    """What exploring keeps of one picture, seen once.

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


def look_at(picture: Picture, shape: tuple[int, int, int] | None, with_features: bool) -> Look:
    """Look at a decoded picture; `shape` is C, H, W of the network's pictures."""
    pixels = shown(to_8bit(picture.pixels))
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
    """Encode pixels H x W x 1|3 uint8 as a WebP file, no side over `side`; smaller pictures keep their size."""
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


@dataclass(frozen=True)
class LookWork:
    """A look at every picture of an exploration, resolved; see `pipeline.shards.work.ShardWork`.

    `source` has the pictures, `destination` is the folder of the exploration, by its name below that of the request;
    `shape` is C, H, W of the network's pictures, None without a network.
    """

    request: ExploreRequest
    source: Store
    exploration: str
    shape: tuple[int, int, int] | None
    tables: tuple[str, ...] = ("looks", "details")

    @cached_property
    def destination(self) -> Store:
        return below(stores_of(self.request).destination, exploration_folder(self.exploration))

    @property
    def home(self) -> Store:
        return self.destination

    @property
    def access(self) -> Access:
        return Access.of(self.request)

    @property
    def cost(self) -> Cost:
        return Cost(_COST, 0, LONGEST**2)

    @property
    def fingerprint(self) -> str:
        decisive = [_VERSION, self.source.url, self.exploration, self.shape, self.request.pixel_limit]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        resolved = {
            "kind": "looks",
            "darkroom": version(),
            "fingerprint": self.fingerprint,
            "pictures": self.source.url,
            "exploration": self.exploration,
            "shape": self.shape,
        }
        return recorded(self.request) | {"resolved": resolved}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], access: Access | None = None) -> LookWork:
        """Open the work of a record where it is to be done. Raises RunError where another Darkroom is there."""
        planned = record["resolved"]
        check_darkroom(planned)
        request = ExploreRequest(**fields_of(record, access))
        shape = planned["shape"] and tuple(planned["shape"])
        work = cls(request, beside_sources(planned["pictures"], request), planned["exploration"], shape)
        if work.fingerprint != planned["fingerprint"]:
            raise RunError(f"{here()} would look at other pictures than was planned; explore again")
        return work

    def objects(self) -> Sequence[StoredObject]:
        """List nothing: the pictures are those of a run."""
        return ()

    def through(
        self,
        found: SourcePicture,
        data: bytes | SharedFile,
        apply: Apply,
        reserve: Reserve,
        give_up: Callable[[], bool],
    ) -> Developed:
        laps, settings = Laps(), Settings(self.request.pixel_limit, measure=False)
        developed, picture = open_picture(found, data, settings, laps, apply, reserve)
        if picture is None:
            return developed
        try:
            look = look_at(picture, self.shape, True)
            details = row_of_details(shown(to_8bit(picture.pixels)))
        except Exception as error:
            fail(developed, None, "develop", "step_failed", f"{type(error).__name__}: {error}")
        else:
            developed.rows["looks"] = [{"key": found.key} | row_of(look)]
            developed.rows["details"] = [{"key": found.key} | details]
        laps.end("develop")
        return developed

    def fault(self, decoded: int, rows: Mapping[str, int], branch_failures: int) -> str | None:
        return None if rows["looks"] == decoded else f"{rows['looks']} looks at {decoded} pictures"


def row_of(look: Look) -> dict[str, Any]:
    """Make a row of the table of looks, without key and shard, of a look with local features."""
    assert look.features is not None
    return {
        "width": look.width,
        "height": look.height,
        "thumbnail": look.thumbnail,
        "luma": look.luma.astype(np.uint8).tobytes(),
        "colour": look.colour.tobytes(),
        "hash": f"{look.hash:016x}",
        "mirrored_hash": f"{look.mirrored_hash:016x}",
        "points": look.features.points.tobytes(),
        "descriptors": look.features.descriptors.tobytes(),
        "features_width": look.features.width,
        "model_input": None if look.model_input is None else look.model_input.tobytes(),
    }


def look_of(row: Mapping[str, Any], shape: tuple[int, int, int] | None) -> Look:
    """Make the look of a row; `shape` is that of its model input. Raises ValueError where arrays are of other sizes."""
    given = row["model_input"]
    features = LocalFeatures(
        np.frombuffer(row["points"], np.float32).reshape(-1, 2),
        np.frombuffer(row["descriptors"], np.uint8).reshape(-1, 128),
        row["features_width"],
    )
    return Look(
        row["width"],
        row["height"],
        row["thumbnail"],
        np.frombuffer(row["luma"], np.uint8).reshape(SMALL, SMALL).astype(np.float32),
        np.frombuffer(row["colour"], np.float32),
        int(row["hash"], 16),
        int(row["mirrored_hash"], 16),
        features,
        None if given is None or shape is None else np.frombuffer(given, np.uint8).reshape(shape),
    )


def read_looks(work: LookWork, plan: Plan) -> tuple[dict[str, Look], list[dict[str, Any]]]:
    """Read the looks of a plan whose shards are done, by key, and the failures of the other pictures.

    Raises StorageError.
    """
    looks: dict[str, Look] = {}
    failures: list[dict[str, Any]] = []
    for shard in range(plan.shards):
        for batch in read_part(work.destination, part_path("looks", plan.run, shard), LOOKS).to_batches(_ROWS):
            looks |= {row["key"]: look_of(row, work.shape) for row in batch.to_pylist()}
        failures += read_part(work.destination, part_path("failures", plan.run, shard), FAILURES).to_pylist()
    return looks, failures
