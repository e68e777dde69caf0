"""Checkpoints: everything a training run needs to go on, as one safetensors object at any URL.

It remembers its chapters, too: stretches of steps with one set of pictures and options, which the card tells.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from models.cards import WEIGHTS
from models.errors import CheckpointError, TooLargeError
from models.files import Files
from models.training.optimisers import moments
from models.training.schedule import Cooldown

#: a larger object is refused before it is read
SIZE_LIMIT = 8 << 30
#: what a card says of a chapter
TOLD = ("steps", "seconds", "data", "licence", "hardware", "training")
#: bytes of a card; a larger one is refused
_CARD_LIMIT = 1 << 20


@dataclass
class Progress:
    """How far a training run has come. Scores: lower is better.

    `history` has an entry for every validation: `step`, `score`, `training loss` (the mean since the one before),
    `training score` where the source has training batches, `learning rate`, and the task's figures.
    `loss_sum` and `loss_count` are of the losses since the last one. `started` names the parameters that began from
    given weights; `scaler` is the state of the gradient scaler. `optimised_from` and `averaged_from` are the steps at
    which optimiser and moving average were begun, `cooldown` is there once the rate falls, `chapters` are those
    of this and earlier trainings (see `begin_chapter`).
    """

    task: str
    step: int = 0
    seconds: float = 0.0
    pictures: int = 0
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_count: int = 0
    started: list[str] = field(default_factory=list)
    scaler: dict[str, float] = field(default_factory=dict)
    optimised_from: int = 0
    averaged_from: int = 0
    cooldown: Cooldown | None = None
    chapters: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Chapter:
    """What a chapter trains with: pictures in words and by the hash of their list, licence, options, command."""

    data: str
    pictures: str
    licence: str
    options: dict[str, Any]
    training: str


def cooldown_url(checkpoint: str) -> str:
    """Return the URL of a checkpoint's cooldown, apart from it so that the constant part can go on from before it."""
    stem = checkpoint.removesuffix(".safetensors").removesuffix(".checkpoint")
    return f"{stem}.cooldown.safetensors"


def start_url(name_or_url: str) -> str:
    """Return the URL of weights to begin from: of a shipped model, a codec's as it is trained, or the given URL."""
    if "/" in name_or_url or "\\" in name_or_url or name_or_url.endswith(".safetensors"):
        return name_or_url
    places = [WEIGHTS / "start" / f"{name_or_url}.safetensors", WEIGHTS / f"{name_or_url}.safetensors"]
    return str(next((place for place in places if place.exists()), name_or_url))


def load_start(url: str, network: nn.Module, files: Files) -> list[str]:
    """Fill a network's tensors from like-named ones of a safetensors file, by URL or shipped name.

    Returns the names of those that were filled. Tensors of another shape are left at their beginnings, as those of
    another task's stem and tail may be. Raises CheckpointError when there is no such file, or it holds a tensor whose
    name the network does not know, or nothing in it fits.
    """
    data = _fetch(start_url(url), files)
    if data is None:
        raise CheckpointError(f"there is nothing at {url} to start from; give the URL of a safetensors file")
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{url} is not a safetensors file ({error}); give another URL to start from") from error
    own = network.state_dict()
    fitting = {name: t for name, t in tensors.items() if name in own and own[name].shape == t.shape}
    strange = [name for name in tensors if name not in own] or ([] if fitting else list(tensors))
    if strange or not tensors:
        told = f"{len(strange)} of its tensors, such as {strange[0]}, have" if strange else "it is empty:"
        raise CheckpointError(f"{url} does not fit this network: {told} no place in it; give another URL to start from")
    network.load_state_dict(fitting, strict=False)
    return sorted(fitting)


def begin_chapter(progress: Progress, chapter: Chapter, new_chapter: bool, url: str) -> bool:
    """Note in the progress of the checkpoint at a URL what is trained with from now on.

    Returns whether it was so before. Raises CheckpointError, naming what differs, when it was not and no new chapter is
    asked for.
    """
    own = [one for one in progress.chapters if "from_step" in one]
    wrong = _differences(own[-1], chapter) if own else []
    if own and not wrong:
        # only words may have changed, such as the number of minutes in the command
        own[-1] |= asdict(chapter)
        return True
    if wrong and not new_chapter:
        raise CheckpointError(
            f"{url} was trained with other {' and '.join(wrong)}; give the same again, --new-chapter to go on with "
            "these (the card will tell of both), or another --checkpoint to begin anew"
        )
    progress.chapters.append({"from_step": progress.step, "from_seconds": progress.seconds} | asdict(chapter))
    progress.optimised_from = progress.step
    return False


def earlier_chapters(start: str, files: Files) -> list[dict[str, Any]]:
    """Return the chapters on the card beside weights that a training begins from; none where there is no card."""
    data = files.read(start_url(start).removesuffix(".safetensors") + ".json", _CARD_LIMIT)
    try:
        card = json.loads(data or b"")
        told = card.get("chapters") or [card]
        return [{name: one.get(name) for name in TOLD} for one in told]
    except (ValueError, AttributeError):
        return []


def told_chapters(progress: Progress, hardware: str) -> list[dict[str, Any]]:
    """List all chapters as a card does, oldest first, with the steps and seconds of each; empty ones are left out."""
    own = [one for one in progress.chapters if "from_step" in one]
    ends = [(one["from_step"], one["from_seconds"]) for one in own[1:]] + [(progress.step, progress.seconds)]
    told = [one for one in progress.chapters if "from_step" not in one]
    for one, (step, seconds) in zip(own, ends, strict=True):
        length = {"steps": step - one["from_step"], "seconds": round(seconds - one["from_seconds"], 1)}
        told.append({name: ({"hardware": hardware} | one | length)[name] for name in TOLD})
    return [one for one in told if one["steps"]]


def save_checkpoint(
    url: str,
    networks: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    files: Files,
) -> None:
    """Write networks by their names, the optimiser's moments by their parameters' names, and progress to a URL.

    Raises what `files` raise.
    """
    tensors = {f"{part}/{k}": v for part, network in networks.items() for k, v in network.state_dict().items()}
    for name, parameter, _ in _named(optimiser):
        kept = {k: v for k, v in optimiser.state[parameter].items() if v is not None}
        tensors |= {f"optimiser/{name}/{k}": v for k, v in kept.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    files.write(url, save(tensors, metadata={"progress": json.dumps(asdict(progress))}))


def load_progress(url: str, task: str, files: Files) -> tuple[Progress, dict[str, Tensor]] | None:
    """Read the progress and tensors of a checkpoint; None when there is none at the URL.

    Raises CheckpointError when the object is no checkpoint of this task.
    """
    data = _fetch(url, files)
    if data is None:
        return None
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        progress = _checked(json.loads(header["__metadata__"]["progress"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{url} is not a Darkroom checkpoint ({error}); give another URL or delete it") from error
    if progress.task != task:
        raise CheckpointError(f"{url} is a checkpoint of {progress.task!r}, not of {task!r}; give another URL")
    return progress, tensors


def restore(
    url: str,
    tensors: dict[str, Tensor],
    networks: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer | None,
    optimiser_name: str,
) -> None:
    """Fill networks and, where one is given, the optimiser from a checkpoint's tensors.

    Raises CheckpointError, naming the URL, when they are of other sizes or another optimiser's.
    """
    try:
        for part, network in networks.items():
            network.load_state_dict(_below(tensors, f"{part}/"))
        if optimiser is not None:
            _restore_moments(url, tensors, optimiser, optimiser_name)
    except RuntimeError as error:
        raise CheckpointError(f"{url} holds a network of other sizes; give another URL or the same sizes") from error


def _restore_moments(url: str, tensors: dict[str, Tensor], optimiser: torch.optim.Optimizer, written_by: str) -> None:
    for name, parameter, matrix in _named(optimiser):
        kept = _below(tensors, f"optimiser/{name}/")
        shapes = {k: tuple(moment.shape) for k, moment in kept.items()}
        if kept and shapes != moments(written_by, parameter, matrix):
            raise CheckpointError(f"{url} was not written by {written_by}; give another URL or its optimiser")
        optimiser.state[parameter] = {k: _like(parameter, moment) for k, moment in kept.items()}


def _differences(before: dict[str, Any], now: Chapter) -> list[str]:
    """Say what differs between a chapter of a checkpoint and what is asked for now, in words."""
    found = []
    if before["pictures"] != now.pictures:
        found.append(f"pictures ({before['data']}; now {now.data}{', but others' * (before['data'] == now.data)})")
    if before["licence"] != now.licence:
        found.append(f"licence ({before['licence']}; now {now.licence})")
    names = sorted(before["options"].keys() | now.options.keys())
    pairs = [(name, before["options"].get(name), now.options.get(name)) for name in names]
    return found + [f"{name} ({one}; now {other})" for name, one, other in pairs if one != other]


def _named(optimiser: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter, bool]]:
    """List every parameter with its name and whether it is a matrix to its optimiser."""
    return [
        (name, parameter, group["matrix"])
        for group in optimiser.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    ]


def _like(parameter: nn.Parameter, moment: Tensor) -> Tensor:
    """Copy a moment to its parameter's device; if of its shape, in its memory format, as fused optimisers expect."""
    if moment.shape != parameter.shape:
        return moment.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)


def _checked(values: dict[str, Any]) -> Progress:
    progress = Progress(**values)
    if isinstance(progress.cooldown, dict):
        progress.cooldown = Cooldown(**progress.cooldown)
    counts = (progress.step, progress.pictures, progress.best_step, progress.stale, progress.loss_count)
    if not all(isinstance(number, int | float) and number >= 0 for number in (*counts, progress.seconds)):
        raise ValueError("its progress is not made of numbers")
    return progress


def _fetch(url: str, files: Files) -> bytes | None:
    try:
        return files.read(url, SIZE_LIMIT)
    except TooLargeError as error:
        raise CheckpointError(f"{error}; give another URL") from error


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
