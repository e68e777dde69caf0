"""One picture through a recipe: decode, every branch, measure, encode. No input or output but bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from models.codec.bitstream import is_stream
from pipeline.destination.layout import picture_path, stream_path
from pipeline.destination.plans import SourcePicture
from pipeline.errors import PictureError
from pipeline.frames.shared_file import SharedFile
from pipeline.networks.learned_codec import told_of_size
from pipeline.networks.restoration_checks import together
from pipeline.pictures.decode import decode
from pipeline.pictures.encode import EXTENSIONS, encode, output_format
from pipeline.pictures.headers import named_as_picture
from pipeline.pictures.perceptual_hash import perceptual_hash
from pipeline.pictures.picture import Picture, Reserve, at_once, cropped, kept, rescaled
from pipeline.pictures.seen import compare_seen, describe_seen
from pipeline.requests.job import Settings
from pipeline.requests.recipe import Branch, Recipe
from pipeline.shards.branches import Result, Row, run_steps
from pipeline.shards.stage_times import Laps

if TYPE_CHECKING:
    from models.inference import Apply


@dataclass
class Developed:
    """Everything that one object gave: rows for the tables (without `shard`) and objects to write, path and bytes.

    `rows` are those of the tables besides manifest and failures, by table.
    """

    manifest: Row
    rows: dict[str, list[Row]] = field(default_factory=dict)
    failures: list[Row] = field(default_factory=list)
    outputs: list[tuple[str, bytes]] = field(default_factory=list)
    #: seconds by stage
    busy: dict[str, float] = field(default_factory=dict)


def develop_picture(
    found: SourcePicture,
    data: bytes | SharedFile,
    recipe: Recipe,
    settings: Settings,
    apply: Apply,
    reserve: Reserve = at_once,
    give_up: Callable[[], bool] = lambda: False,
) -> Developed:
    """Develop one picture to all its rows and outputs. Never raises for what the bytes or a step did: that is a row.

    `data` are the bytes of the object, or the file of frames that the picture is in. `apply` runs tensors through
    networks (see `models.inference`). `reserve` is told of the picture's pixels before they are allocated. `give_up` is
    asked between steps; once it says True the work stops, and what comes back is to be thrown away.
    """
    laps = Laps()
    apply = laps.elsewhere(apply)
    developed, picture = open_picture(found, data, settings, laps, apply, reserve)
    if picture is None:
        return developed
    developed.rows |= {"metrics": [], "latents": []}
    # prefixes that several branches share are worked out once
    shared: dict[tuple[object, ...], Result] = {}
    references: dict[str, Picture] = {"source": picture}
    for branch in _reference_first(recipe):
        if give_up():
            break
        try:
            result = run_steps(branch, picture, recipe, settings.measure, apply, shared, give_up)
        except PictureError as error:
            fail(developed, branch.name, "develop", error.reason, error.message)
            continue
        except Exception as error:
            fail(developed, branch.name, "develop", "step_failed", f"{type(error).__name__}: {error}")
            continue
        finally:
            laps.end("develop")
        if branch.name == recipe.reference:
            references[branch.name] = result.picture
        reference = recipe.reference if branch.name != recipe.reference else "source"
        copied = data if settings.copies and isinstance(data, bytes) else None
        _finish_branch(developed, branch, result, picture, copied, reference, references.get(reference), settings, laps)
    settle(developed, developed.rows["metrics"])
    order = {branch.name: index for index, branch in enumerate(recipe.branches)}
    for rows in (*developed.rows.values(), developed.failures):
        rows.sort(key=lambda row: order.get(row["branch"], -1))
    return developed


def open_picture(
    found: SourcePicture,
    data: bytes | SharedFile,
    settings: Settings,
    laps: Laps,
    apply: Apply,
    reserve: Reserve,
) -> tuple[Developed, Picture | None]:
    """Decode a picture and fill in its row of the manifest; None where it cannot be decoded.

    A picture that cannot be decoded is a failure, but for what neither is a picture nor is called like one, where the
    settings are not strict; where they are, so is a damaged one. `apply` is for streams, whose time is not
    that of `laps`.
    """
    developed = Developed(_manifest_row(found, data), busy=laps.busy)
    try:
        picture = _decode(found, data, settings, apply, laps.elsewhere(reserve), developed.manifest)
    except PictureError as error:
        no_picture = error.reason == "not_an_image" or not data
        if no_picture and not settings.strict and not named_as_picture(found.object_key.rstrip("/")):
            developed.manifest |= {"status": "left_out", "reason": "not_an_image"}
        else:
            fail(developed, None, "decode", error.reason, error.message)
        laps.end("decode")
        return developed, None
    laps.end("decode")
    developed.manifest |= _picture_columns(picture)
    if settings.strict and picture.metadata.damage:
        fail(developed, None, "decode", "corrupt", picture.metadata.damage)
        return developed, None
    laps.end("measure")
    return developed, picture


def fail(developed: Developed, branch: str | None, stage: str, reason: str, message: str) -> None:
    """Record a failure; without a branch it is the picture's own, and its manifest row says so."""
    row = {"key": developed.manifest["key"], "branch": branch, "stage": stage, "reason": reason}
    developed.failures.append(row | {"message": message[:500]})
    if branch is None:
        developed.manifest |= {"status": "failed", "reason": reason}


def settle(developed: Developed, rows: Sequence[Row]) -> None:
    """Let the status of a decoded picture say what became of its branches: all well, some failed, or all of them.

    `rows` are those of the branches that succeeded.
    """
    failed = [row["reason"] for row in developed.failures if row["branch"] is not None]
    if failed:
        status = "partial" if rows else "failed"
        developed.manifest |= {"status": status, "reason": failed[0]}


def unread(found: SourcePicture) -> Developed:
    """Make the rows of an object whose bytes never came; `fail` says why."""
    return Developed(_manifest_row(found, None))


def _decode(
    found: SourcePicture,
    data: bytes | SharedFile,
    settings: Settings,
    apply: Apply,
    reserve: Reserve,
    manifest: Row,
) -> Picture:
    if isinstance(data, SharedFile):
        assert found.frame is not None
        frame = data.read(found.frame, found.key, reserve)
        manifest["duration_s"] = frame.duration_s
        picture = frame.picture
    elif is_stream(data):
        from pipeline.networks.streams import decode_stream

        return decode_stream(
            data,
            found.key,
            apply,
            pixel_limit=settings.pixel_limit,
            codecs=settings.codecs,
            crop=settings.crop,
            reserve=reserve,
        )
    else:
        # the object's own name may say what its content does not
        picture = decode(data, found.object_key, settings.pixel_limit, reserve)
    return picture if settings.crop is None else cropped(picture, settings.crop)


def _reference_first(recipe: Recipe) -> list[Branch]:
    return sorted(recipe.branches, key=lambda branch: branch.name != recipe.reference)


@dataclass(frozen=True)
class _Stored:
    """What is kept of a branch's result, path and size, and the picture that a reader gets from it.

    Without a path nothing is kept of these very pixels. `dropped` is what the file could not hold.
    """

    path: str | None
    size: int | None
    picture: Picture
    unchanged: bool = False
    dropped: tuple[str, ...] = ()


def _finish_branch(
    developed: Developed,
    branch: Branch,
    result: Result,
    source: Picture,
    data: bytes | None,
    reference_name: str,
    reference: Picture | None,
    settings: Settings,
    laps: Laps,
) -> None:
    """Encode, measure and record one branch's result; what fails on the way is a row.

    `data` are the bytes of the source, where they may be copied.
    """
    key, stage = developed.manifest["key"], "encode"
    outputs: list[tuple[str, bytes]] = []
    try:
        stored = _Stored(None, None, result.picture)
        if branch.output.format != "none":
            stored = _encoded(branch, result, source, data, settings, outputs)
        stream = None
        if result.stream is not None:
            extension = next(s.step.extension for s in branch.steps if s.step.has_stream)
            stream = stream_path(branch.name, key, extension)
            outputs.append((stream, result.stream))
            if result.stream_is_picture:
                stored = _Stored(stream, len(result.stream), result.picture, dropped=result.dropped)
        laps.end("encode")
        stage = "measure"
        if reference is None:
            raise PictureError("step_failed", f"its reference branch {reference_name} failed")
        row = _metrics_row(key, branch.name, result, source, reference_name, stored)
        row |= asdict(together(result.guards)) | {"skipped": "; ".join(result.skipped) or None}
        warnings = [row["warning"], *result.warnings, _larger(branch, result, developed.manifest, settings)]
        row["warning"] = "; ".join(filter(None, warnings)) or None
        if settings.measure:
            row |= compare_seen(stored.picture.pixels, reference.pixels) | describe_seen(stored.picture.pixels)
    except PictureError as error:
        fail(developed, branch.name, stage, error.reason, error.message)
        return
    except Exception as error:
        fail(developed, branch.name, stage, "step_failed", f"{type(error).__name__}: {error}")
        return
    finally:
        laps.end(stage)
    developed.outputs += outputs
    developed.rows["metrics"].append(row)
    common = {"key": key, "branch": branch.name, "stream": stream}
    developed.rows["latents"] += [common | row for row in result.latents]


def _larger(branch: Branch, result: Result, source: Row, settings: Settings) -> str | None:
    """Say that a learned stream is larger than the file it was made of; None of frames, crops and other codecs."""
    learned = any(step.step.name == "autoencode" for step in branch.steps)
    if not learned or result.stream is None or settings.crop or source["frame"] is not None or not source["size"]:
        return None
    told = told_of_size(len(result.stream), source["size"])
    return f"autoencode: {told}" if told else None


def _encoded(
    branch: Branch,
    result: Result,
    source: Picture,
    data: bytes | None,
    settings: Settings,
    outputs: list[tuple[str, bytes]],
) -> _Stored:
    """Encode the file of a result, add it to `outputs`, and return it with the picture in it.

    The picture is decoded again where the format may lose bits. Where no step has changed it, and the file is to be of
    the source's format, the file is the source's bytes.
    """
    name = output_format(branch.output.format, source.metadata, result.picture.pixels)
    path = picture_path(branch.name, source.key, EXTENSIONS[name])
    # without a step, a quality that is asked for is all that is asked for
    same_format = name == source.metadata.format and (branch.steps or branch.output.quality is None)
    if (
        data is not None
        and same_format
        and branch.output.metadata == "all"
        and np.array_equal(result.picture.pixels, source.pixels)
    ):
        outputs.append((path, data))
        return _Stored(path, len(data), source, unchanged=True)
    picture = result.picture
    said = kept(rescaled(source, picture), branch.output.metadata)
    written = encode(picture.pixels, said, name, branch.output.quality)
    encoded = written.data
    outputs.append((path, encoded))
    if settings.measure and name != "png":
        try:
            picture = decode(
                encoded, path, max(settings.pixel_limit, picture.pixels.shape[0] * picture.pixels.shape[1])
            )
        except PictureError as error:
            raise PictureError("step_failed", f"the {name} file cannot be read again: {error.message}") from error
    return _Stored(path, len(encoded), picture, dropped=written.dropped)


def _metrics_row(key: str, branch: str, result: Result, source: Picture, reference: str, stored: _Stored) -> Row:
    height, width, channels = source.pixels.shape
    raw = height * width * channels * source.pixels.itemsize
    size = stored.size
    rounded = ("16 bits",) if stored.path and stored.picture.pixels.itemsize < source.pixels.itemsize else ()
    return {
        "key": key,
        "branch": branch,
        "reference": reference,
        "width": stored.picture.pixels.shape[1],
        "height": stored.picture.pixels.shape[0],
        "path": stored.path,
        "unchanged": stored.unchanged,
        "dropped": ", ".join(dict.fromkeys((*rounded, *stored.dropped))) or None,
        "bytes": size,
        "bpp": None if size is None else 8 * size / (height * width),
        "compression_ratio": None if size is None else raw / size,
        "encode_s": result.encode_s,
        "decode_s": result.decode_s,
        "develop_s": result.seconds,
    }


def _manifest_row(found: SourcePicture, data: bytes | SharedFile | None) -> Row:
    digest = data.sha256 if isinstance(data, SharedFile) else data and hashlib.sha256(data).hexdigest()
    return {
        "key": found.key,
        "url": found.url,
        "size": found.size,
        "etag": found.etag,
        "modified": found.modified,
        "sha256": digest,
        "status": "ok",
        "file": found.file,
        "frame": found.frame,
        "frames": None if found.frame is None else found.frames,
    }


def _picture_columns(picture: Picture) -> Row:
    return {
        "width": picture.pixels.shape[1],
        "height": picture.pixels.shape[0],
        "channels": picture.pixels.shape[2],
        "bit_depth": picture.metadata.bit_depth,
        "format": picture.metadata.format,
        "mode": picture.metadata.mode,
        "orientation": picture.metadata.orientation,
        "perceptual_hash": perceptual_hash(picture.pixels),
        "damaged": picture.metadata.damage,
        "omitted": picture.metadata.omitted,
    }
