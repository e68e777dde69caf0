"""The names a field offers to choose from in forms and on the command line; never the only way to fill it in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from models.cards import list_cards


@dataclass(frozen=True)
class Offer:
    """An offer of a text field: `names` to choose from, or what is called `other`, such as the URL of one's own."""

    names: Callable[[], list[str]]
    other: str

    def __call__(self, schema: dict[str, Any]) -> None:
        several = schema.get("items", schema)
        parts = several.get("anyOf", [{name: several.pop(name) for name in ("type",) if name in several}])
        several["anyOf"] = [
            {"title": "shipped", "type": "string", "enum": self.names()},
            {"title": self.other, "type": "string"},
            *(part for part in parts if part.get("type") != "string"),
        ]


def offering(names: Callable[[], list[str]], other: str) -> Any:
    """Return a field whose schema has an `Offer` of these names."""
    return Field(json_schema_extra=Offer(names, other))


def shipped_models(*tasks: str) -> list[str]:
    """Return the names of the models for these tasks that come with Darkroom; of all models, where no task is named."""
    return [card.name for card in list_cards() if not tasks or card.task in tasks]
