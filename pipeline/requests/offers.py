"""The recipes that a request offers: shipped ones by name, a file, or one written into the form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipeline.steps.offers import Offer

SHIPPED = Path(__file__).parent / "recipes"


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with Darkroom, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


@dataclass(frozen=True)
class _RecipeOffer(Offer):
    """An `Offer` of names, another name, or a recipe that is written into the form."""

    def __call__(self, schema: dict[str, Any]) -> None:
        super().__call__(schema)
        _inline_recipe(schema)


def _inline_recipe(schema: dict[str, Any]) -> None:
    # loads every step: only where a form is made
    from pipeline.requests.catalogue import all_steps

    names = [step.name for step in all_steps()]
    chain = {
        "type": "array",
        "items": {"type": "object", "required": ["step"], "properties": {"step": {"enum": names}}},
    }
    with_output = {"type": "object", "properties": {"steps": chain, "output": {"type": "object"}}}
    (inline,) = (part for part in schema["anyOf"] if part.get("type") == "object")
    inline |= {
        "title": "written here",
        "required": ["branches"],
        "properties": {
            "name": {"type": "string", "title": "Name"},
            "reference": {"type": "string", "title": "Reference", "description": "source, or the name of a branch"},
            "branches": {
                "type": "object",
                "title": "Branches",
                "description": 'names and chains of steps, such as {"a": [{"step": "clahe", "clip_limit": 2}]}',
                "additionalProperties": {"anyOf": [chain, with_output]},
            },
            "output": {"type": "object", "title": "Output", "description": 'such as {"format": "png"}'},
        },
        "additionalProperties": False,
    }


RecipeChoice = Annotated[str | dict[str, Any], Field(json_schema_extra=_RecipeOffer(shipped_recipes, "a YAML file"))]
