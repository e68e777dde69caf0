"""One picture through a recipe: decode, every branch, measure, encode. No input or output but bytes."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from models.codec.bitstream import is_stream
from models.inference import Apply
from pipeline.decode import decode
from pipeline.encode import EXTENSIONS, encode, output_format
from pipeline.frames.shared_file import SharedFile
from pipeline.frames.source import SourcePicture
from pipeline.guards import Guards, check, together
from pipeline.latents import packed_columns, vector_columns
from pipeline.metrics import compare, describe
from pipeline.perceptual_hash import perceptual_hash
from pipeline.picture import Crop, Picture, PictureError, cropped, join_alpha
from pipeline.recipe import Branch, BranchStep, Recipe
from pipeline.steps.autoencoders import Representer
from pipeline.steps.degrade import generator_for
from pipeline.steps.networks import CodecNetwork
from pipeline.steps.restoration import Restorer
from pipeline.streams import decode_stream

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What decides the output besides the recipe. `models` are URLs of weights that streams in the source may need."""

    pixel_limit: int
    measure: bool
    crop: Crop | None = None
    models: tuple[str, ...] = ()


@dataclass
class Developed:
    """Everything one object gave: rows for the tables (without `shard`) and objects to write, path and bytes."""

    manifest: Row
    metrics: list[Row] = field(default_factory=list)
    latents: list[Row] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)
    outputs: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass(frozen=True)
class _Result:
    """A picture after some steps of a branch; the stream is its codec step's."""

    picture: Picture
    seconds: float = 0.0
    stream: bytes | None = None
    encode_s: float | None = None
    decode_s: float | None = None
    #: rows of the latents table: what the codec step's and representing steps' models said
    latents: tuple[Row, ...] = ()
    #: what was said of each restoration step, and which automatic mode left out
    guards: tuple[Guards, ...] = ()
    skipped: tuple[str, ...] = ()


def develop_picture(
    found: SourcePicture,
    data: bytes | SharedFile,
    recipe: Recipe,
    settings: Settings,
    apply: Apply,
    reserve: Callable[[int], None] = lambda pixels: None,
    give_up: Callable[[], bool] = lambda: False,
) -> Developed:
    """One picture to all its rows and outputs. Never raises for what the bytes or a step did: that is a row.

    `data` are the bytes of the object, or the file of frames that the picture is in.

    `apply` runs tensors through networks (see `models.inference`). `reserve` is told the pixels of the largest picture
    that a branch makes, once they are known, and may wait until there is memory for them. `give_up` is asked between
    steps; once it says True the work stops, and what comes back is to be thrown away.
    """
    developed = Developed(_manifest_row(found, data))
    try:
        growth = _growth(recipe)
        picture = _decode(found, data, settings, apply, lambda pixels: reserve(growth * pixels), developed.manifest)
    except PictureError as error:
        fail(developed, None, "decode", error.reason, error.message)
        return developed
    developed.manifest |= _picture_columns(picture)
    # prefixes that several branches share are worked out once
    shared: dict[tuple, _Result] = {}
    references: dict[str, Picture] = {"source": picture}
    for branch in _reference_first(recipe):
        if give_up():
            break
        try:
            result = _run_steps(branch, picture, recipe, settings, apply, shared, give_up)
        except PictureError as error:
            fail(developed, branch.name, "develop", error.reason, error.message)
            continue
        except Exception as error:
            fail(developed, branch.name, "develop", "step_failed", f"{type(error).__name__}: {error}")
            continue
        if branch.name == recipe.reference:
            references[branch.name] = result.picture
        reference = recipe.reference if branch.name != recipe.reference else "source"
        _finish_branch(developed, branch, result, picture, reference, references.get(reference), settings)
    order = {branch.name: index for index, branch in enumerate(recipe.branches)}
    for rows in (developed.metrics, developed.latents, developed.failures):
        rows.sort(key=lambda row: order.get(row["branch"], -1))
    return developed


def fail(developed: Developed, branch: str | None, stage: str, reason: str, message: str) -> None:
    """Record a failure; without a branch it is the picture's own, and its manifest row says so."""
    row = {"key": developed.manifest["key"], "branch": branch, "stage": stage, "reason": reason}
    developed.failures.append(row | {"message": message[:500]})
    if branch is None:
        developed.manifest |= {"status": "failed", "reason": reason}


def unread(found: SourcePicture) -> Developed:
    """The rows of an object whose bytes never came; `fail` says why."""
    return Developed(_manifest_row(found, None))


def _growth(recipe: Recipe) -> int:
    """How many times more pixels than the source's the largest picture of a branch has."""
    sides = (
        math.prod(network.scale for network in map(_network, branch.steps) if isinstance(network, Restorer))
        for branch in recipe.branches
    )
    return max(sides, default=1) ** 2


def _network(item: BranchStep) -> Restorer | CodecNetwork | Representer | None:
    return item.step.load(item.parameters) if item.step.load else None


def _decode(
    found: SourcePicture,
    data: bytes | SharedFile,
    settings: Settings,
    apply: Apply,
    reserve: Callable[[int], None],
    manifest: Row,
) -> Picture:
    if isinstance(data, SharedFile):
        assert found.frame is not None
        frame = data.read(found.frame, found.key)
        manifest["duration_s"] = frame.duration_s
        picture = frame.picture
    elif is_stream(data):
        return decode_stream(
            data,
            found.key,
            apply,
            pixel_limit=settings.pixel_limit,
            models=settings.models,
            crop=settings.crop,
            reserve=reserve,
        )
    else:
        picture = decode(data, found.key, settings.pixel_limit)
    reserve(picture.pixels.shape[0] * picture.pixels.shape[1])
    return picture if settings.crop is None else cropped(picture, settings.crop)


def _reference_first(recipe: Recipe) -> list[Branch]:
    return sorted(recipe.branches, key=lambda branch: branch.name != recipe.reference)


def _run_steps(
    branch: Branch,
    picture: Picture,
    recipe: Recipe,
    settings: Settings,
    apply: Apply,
    shared: dict[tuple, _Result],
    give_up: Callable[[], bool],
) -> _Result:
    prefixes = [_name_of(branch.steps[: count + 1]) for count in range(len(branch.steps))]
    others = [_name_of(b.steps) for b in recipe.branches if b is not branch]
    result = _Result(picture)
    for prefix, item in zip(prefixes, branch.steps, strict=True):
        if give_up():
            break
        if prefix in shared:
            result = shared[prefix]
            continue
        result = _run_step(item, result, settings, apply)
        if any(other[: len(prefix)] == prefix for other in others):
            shared[prefix] = result
    return result


def _run_step(item: BranchStep, before: _Result, settings: Settings, apply: Apply) -> _Result:
    network = _network(item)
    if isinstance(network, Restorer):
        return _run_restorer(item.step.name, network, before, settings, apply)
    if isinstance(network, CodecNetwork):
        return _run_learned_codec(network, before, apply)
    if isinstance(network, Representer):
        return _run_representer(network, before, apply)
    step, parameters, picture = item.step, item.parameters, before.picture
    colour, alpha = np.ascontiguousarray(picture.colour), picture.alpha
    started = time.perf_counter()
    changes: dict[str, Any] = {}
    if step.kind == "pixels":
        assert step.function is not None
        if step.seeded:
            pixels = step.function(colour, parameters, generator_for(parameters.seed, picture.key))  # type: ignore[attr-defined]
        else:
            pixels = step.function(colour, parameters)
        if step.resizes and alpha is not None:
            alpha = step.function(np.ascontiguousarray(alpha), parameters)
    else:
        assert step.encode is not None
        assert step.decode is not None
        stream = step.encode(colour, parameters)
        encoded = time.perf_counter()
        pixels = step.decode(stream)
        changes = {"stream": stream, "encode_s": encoded - started, "decode_s": time.perf_counter() - encoded}
    seconds = before.seconds + time.perf_counter() - started
    if alpha is not None and alpha.dtype != pixels.dtype:
        alpha = (alpha // 257).astype(np.uint8) if pixels.dtype == np.uint8 else alpha.astype(np.uint16) * 257
    after = replace(picture, pixels=np.ascontiguousarray(join_alpha(pixels, alpha)))
    return replace(before, picture=after, seconds=seconds, **changes)


def _run_restorer(name: str, network: Restorer, before: _Result, settings: Settings, apply: Apply) -> _Result:
    started = time.perf_counter()
    restored = network.restore(before.picture, apply)
    seconds = before.seconds + time.perf_counter() - started
    return replace(
        before,
        picture=replace(before.picture, pixels=restored.pixels),
        seconds=seconds,
        guards=(*before.guards, check(name, restored)) if settings.measure else (),
        skipped=(*before.skipped, restored.skipped) if restored.skipped else before.skipped,
    )


def _run_representer(network: Representer, before: _Result, apply: Apply) -> _Result:
    started = time.perf_counter()
    row = {"model": network.model} | vector_columns(network.represent(before.picture, apply), before.picture)
    seconds = before.seconds + time.perf_counter() - started
    return replace(before, seconds=seconds, latents=(*before.latents, row))


def _run_learned_codec(codec: CodecNetwork, before: _Result, apply: Apply) -> _Result:
    """The stream of the whole picture, alpha and metadata too, and what it decodes to: no stream is kept untried."""
    started = time.perf_counter()
    stream, latent = codec.encode(before.picture, apply)
    encode_s = time.perf_counter() - started
    # before decoding, which needs the room that latents take
    columns = packed_columns(latent)
    del latent
    started = time.perf_counter()
    picture = codec.decode(stream, before.picture.key, apply)
    decode_s = time.perf_counter() - started
    return replace(
        before,
        picture=picture,
        seconds=before.seconds + encode_s + decode_s,
        stream=stream,
        encode_s=encode_s,
        decode_s=decode_s,
        latents=(*before.latents, {"model": codec.model} | columns),
    )


def _finish_branch(
    developed: Developed,
    branch: Branch,
    result: _Result,
    source: Picture,
    reference_name: str,
    reference: Picture | None,
    settings: Settings,
) -> None:
    """Encode, measure and record one branch's result; what fails on the way is a row."""
    key, stage = developed.manifest["key"], "encode"
    outputs: list[tuple[str, bytes]] = []
    try:
        size = None
        if branch.output.format != "none":
            name = output_format(branch.output.format, source.metadata, result.picture.pixels)
            data = encode(result.picture.pixels, source.metadata, name, branch.output.quality)
            outputs.append((f"pictures/{branch.name}/{key}.{EXTENSIONS[name]}", data))
            size = len(data)
        stream_path = None
        if result.stream is not None:
            extension = next(s.step.extension for s in branch.steps if s.step.has_stream)
            stream_path = f"streams/{branch.name}/{key}.{extension}"
            outputs.append((stream_path, result.stream))
            size = len(result.stream)
        stage = "measure"
        if reference is None:
            raise PictureError("step_failed", f"its reference branch {reference_name} failed")
        row = _metrics_row(key, branch.name, result, source, reference_name, size)
        row |= asdict(together(result.guards)) | {"skipped": "; ".join(result.skipped) or None}
        if settings.measure:
            row |= compare(result.picture.colour, reference.colour) | describe(result.picture.colour)
    except PictureError as error:
        fail(developed, branch.name, stage, error.reason, error.message)
        return
    except Exception as error:
        fail(developed, branch.name, stage, "step_failed", f"{type(error).__name__}: {error}")
        return
    developed.outputs += outputs
    developed.metrics.append(row)
    common = {"key": key, "branch": branch.name, "stream": stream_path}
    developed.latents += [common | row for row in result.latents]


def _metrics_row(key: str, branch: str, result: _Result, source: Picture, reference: str, size: int | None) -> Row:
    height, width, channels = source.pixels.shape
    raw = height * width * channels * source.pixels.itemsize
    return {
        "key": key,
        "branch": branch,
        "reference": reference,
        "width": result.picture.pixels.shape[1],
        "height": result.picture.pixels.shape[0],
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
        "perceptual_hash": perceptual_hash(picture.colour),
    }


def _name_of(steps: tuple[BranchStep, ...]) -> tuple:
    return tuple((s.step.name, s.parameters) for s in steps)
