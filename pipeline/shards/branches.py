"""One branch of a recipe over a decoded picture: its steps in their order, prefixes shared with other branches once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.networks.autoencoders import Representer
from pipeline.networks.latents import packed_columns, vector_columns
from pipeline.networks.learned_codec import CodecNetwork, told_of_graphic
from pipeline.networks.restoration import Restorer
from pipeline.networks.restoration_checks import Guards, check
from pipeline.pictures.picture import Picture, kept, rescaled
from pipeline.requests.recipe import Branch, BranchStep, Recipe
from pipeline.shards.apply import apply_pixel_step, decode_with, encode_with

if TYPE_CHECKING:
    from models.inference import Apply

Row = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """A picture after some steps of a branch; `stream` is what its codec step wrote.

    `stream_is_picture`: the picture is what that stream decodes to, for no later step has changed it.
    """

    picture: Picture
    #: the picture before the first step, with the metadata that the branch keeps
    source: Picture
    seconds: float = 0.0
    stream: bytes | None = None
    stream_is_picture: bool = False
    encode_s: float | None = None
    decode_s: float | None = None
    #: rows of the latents table: what the codec step's and representing steps' models said
    latents: tuple[Row, ...] = ()
    #: what was said of each restoration step, and which automatic mode left out
    guards: tuple[Guards, ...] = ()
    skipped: tuple[str, ...] = ()
    #: what else is to be looked at
    warnings: tuple[str, ...] = ()
    #: what of the picture the stream could not hold
    dropped: tuple[str, ...] = ()


def run_steps(
    branch: Branch,
    picture: Picture,
    recipe: Recipe,
    measure: bool,
    apply: Apply,
    shared: dict[tuple[object, ...], Result],
    give_up: Callable[[], bool],
) -> Result:
    """Take a picture through the steps of a branch, and return what came of it.

    `shared` keeps what other branches of the recipe begin with, too, by the names of the steps. `give_up` is asked
    between steps. Raises PictureError, and what else a step raises.
    """
    prefixes = [_name_of(branch, count + 1) for count in range(len(branch.steps))]
    others = [_name_of(b, len(b.steps)) for b in recipe.branches if b is not branch]
    source = replace(picture, metadata=kept(picture.metadata, branch.output.metadata))
    result = Result(source, source)
    for prefix, item in zip(prefixes, branch.steps, strict=True):
        if give_up():
            break
        if prefix in shared:
            result = replace(shared[prefix], source=source)
            continue
        result = _run_step(item, result, measure, apply)
        if any(other[: len(prefix)] == prefix for other in others):
            shared[prefix] = result
    return result


def _run_step(item: BranchStep, before: Result, measure: bool, apply: Apply) -> Result:
    network = item.network
    if isinstance(network, Restorer):
        return _run_restorer(item.step.name, network, before, measure, apply)
    if isinstance(network, CodecNetwork):
        return _run_learned_codec(network, before, apply)
    if isinstance(network, Representer):
        return _run_representer(network, before, apply)
    step, parameters, picture = item.step, item.parameters, before.picture
    started = time.perf_counter()
    changes: dict[str, Any] = {"stream_is_picture": False}
    if step.kind == "pixels":
        pixels = apply_pixel_step(step, picture.pixels, parameters, picture.key)
    else:
        stream, dropped = encode_with(step, picture.pixels, rescaled(before.source, picture), parameters)
        encoded = time.perf_counter()
        pixels = decode_with(step, stream, picture.pixels)
        changes = {
            "stream": stream,
            "stream_is_picture": True,
            "encode_s": encoded - started,
            "decode_s": time.perf_counter() - encoded,
            "dropped": dropped,
        }
    seconds = before.seconds + time.perf_counter() - started
    return replace(before, picture=replace(picture, pixels=np.ascontiguousarray(pixels)), seconds=seconds, **changes)


def _run_restorer(name: str, network: Restorer, before: Result, measure: bool, apply: Apply) -> Result:
    started = time.perf_counter()
    restored = network.restore(before.picture, apply)
    seconds = before.seconds + time.perf_counter() - started
    return replace(
        before,
        picture=replace(before.picture, pixels=restored.pixels),
        stream_is_picture=before.stream_is_picture and np.array_equal(restored.pixels, before.picture.pixels),
        seconds=seconds,
        guards=(*before.guards, check(name, restored) if measure else Guards(warning=restored.warning)),
        skipped=(*before.skipped, restored.skipped) if restored.skipped else before.skipped,
    )


def _run_representer(network: Representer, before: Result, apply: Apply) -> Result:
    started = time.perf_counter()
    row = {"model": network.model} | vector_columns(network.represent(before.picture, apply), before.picture)
    seconds = before.seconds + time.perf_counter() - started
    return replace(before, seconds=seconds, latents=(*before.latents, row))


def _run_learned_codec(codec: CodecNetwork, before: Result, apply: Apply) -> Result:
    """Encode the whole picture, alpha and metadata too, and decode it again: no stream is kept untried."""
    from pipeline.networks.streams import what_is_kept

    given = replace(before.picture, metadata=rescaled(before.source, before.picture))
    started = time.perf_counter()
    stream, latent = codec.encode(given, apply)
    encode_s = time.perf_counter() - started
    # before decoding, which needs the room that latents take
    columns = packed_columns(latent)
    del latent
    started = time.perf_counter()
    picture = codec.decode(stream, before.picture.key, apply)
    decode_s = time.perf_counter() - started
    told = told_of_graphic(given)
    return replace(
        before,
        picture=picture,
        seconds=before.seconds + encode_s + decode_s,
        stream=stream,
        stream_is_picture=True,
        encode_s=encode_s,
        decode_s=decode_s,
        latents=(*before.latents, {"model": codec.model} | columns),
        dropped=what_is_kept(given).dropped,
        warnings=(*before.warnings, f"autoencode: {told}") if told else before.warnings,
    )


def _name_of(branch: Branch, count: int) -> tuple[object, ...]:
    """Name what a branch has after so many steps: streams differ by the metadata in them, too."""
    return branch.output.metadata, *((s.step.name, s.parameters) for s in branch.steps[:count])
