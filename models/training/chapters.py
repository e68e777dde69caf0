"""Chapters of a training: stretches of steps with one set of pictures and options, as checkpoint and card tell them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from models.errors import CheckpointError
from models.files import Files
from models.training.checkpoint import Progress, start_url

#: what a card says of a chapter
TOLD = ("steps", "seconds", "data", "licence", "hardware", "training")

#: bytes of a card; a larger one is refused
_CARD_LIMIT = 1 << 20


@dataclass(frozen=True)
class Chapter:
    """What a chapter trains with: pictures in words and by the hash of their list, licence, options, command."""

    data: str
    pictures: str
    licence: str
    options: dict[str, Any]
    training: str


def begin_chapter(progress: Progress, chapter: Chapter, new_chapter: bool, url: str) -> bool:
    """Note in the progress of the checkpoint at a URL what is trained with from now on; whether it was so before.

    Raises CheckpointError, naming what differs, when it was not and no new chapter is asked for.
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
    """All chapters as a card lists them, oldest first, with the steps and seconds of each; empty ones are left out."""
    own = [one for one in progress.chapters if "from_step" in one]
    ends = [(one["from_step"], one["from_seconds"]) for one in own[1:]] + [(progress.step, progress.seconds)]
    told = [one for one in progress.chapters if "from_step" not in one]
    for one, (step, seconds) in zip(own, ends, strict=True):
        length = {"steps": step - one["from_step"], "seconds": round(seconds - one["from_seconds"], 1)}
        told.append({name: ({"hardware": hardware} | one | length)[name] for name in TOLD})
    return [one for one in told if one["steps"]]


def _differences(before: dict[str, Any], now: Chapter) -> list[str]:
    """What differs between a chapter of a checkpoint and what is asked for now, in words."""
    found = []
    if before["pictures"] != now.pictures:
        found.append(f"pictures ({before['data']}; now {now.data}{', but others' * (before['data'] == now.data)})")
    if before["licence"] != now.licence:
        found.append(f"licence ({before['licence']}; now {now.licence})")
    names = sorted(before["options"].keys() | now.options.keys())
    pairs = [(name, before["options"].get(name), now.options.get(name)) for name in names]
    return found + [f"{name} ({one}; now {other})" for name, one, other in pairs if one != other]
