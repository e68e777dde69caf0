"""Cards of models: what is known of a set of weights, in a JSON file beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import ModelError

#: the folder of the weights that come with Darkroom
WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Card:
    """What is known of a set of weights.

    `figures` were measured by `command`, the weights trained by `training`; `sha256` is of the safetensors file;
    `notes` say what else one must know. `chapters` are what it was trained with before and last, oldest first, each
    with `steps`, `seconds`, `data`, `licence`, `hardware` and `training`; `steps` and `seconds` are of all together.
    """

    name: str
    task: str
    summary: str
    sizes: dict[str, Any]
    parameters: int
    data: str
    licence: str
    steps: int
    seconds: float
    hardware: str
    training: str
    figures: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    sha256: str = ""
    notes: str = ""
    chapters: list[dict[str, Any]] = field(default_factory=list)


def list_cards() -> list[Card]:
    """Read the cards of the weights that come with Darkroom, sorted by name."""
    return [read_card(path.read_text(), str(path)) for path in sorted(WEIGHTS.glob("*.json"))]


def read_card(text: str, where: str) -> Card:
    """Read a card from the text of its JSON file. Raises ModelError, which names `where` the weights lie."""
    try:
        return Card(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ModelError(f"the card beside {where} is not readable: {error}") from error
