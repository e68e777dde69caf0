"""What forms and commands show of a request: the order of its fields, and what there is to choose from.

A choice is never the only way: beside the names that come with Darkroom a form takes a file's path or a URL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from models.cards import list_cards
from pipeline.storage.access import without_credentials
from pipeline.storage.store import StorageOptions

_ROOT = Path(__file__).parents[2]

#: for Python alone: a form would send secrets to Prefect's database, which takes the names of blocks instead
Storage = SkipJsonSchema[StorageOptions | None]


def field_order(model: type[BaseModel]) -> list[str]:
    """Names of the fields that forms and commands show: its `first`, what is particular to it, then the rest."""
    shown = [name for name, field in model.model_fields.items() if not _for_python(field.metadata)]
    first = [name for name in getattr(model, "first", ()) if name in shown]
    own = [name for name in model.__annotations__ if name in shown]
    return list(dict.fromkeys([*first, *own, *shown]))


def _for_python(metadata: list[Any]) -> bool:
    return any(isinstance(one, SkipJsonSchema) for one in metadata)  # type: ignore[misc]


def _as_form(schema: dict[str, Any], model: type[BaseModel]) -> None:
    fields = schema["properties"]
    schema["properties"] = {name: _field(name, fields[name]) for name in field_order(model)}


def _field(name: str, about: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field for people: a title in words, and one that may be left out is empty, not "None"."""
    words = name.replace("_", " ").capitalize()
    for ending, unit in ((" s", " (seconds)"), (" gib", " (GiB)")):
        words = words.removesuffix(ending) + unit if words.endswith(ending) else words
    about = about | {"title": words}
    if about.get("default", ...) is None and "anyOf" in about:
        parts = [part for part in about["anyOf"] if part != {"type": "null"}]
        rest = {key: value for key, value in about.items() if key not in ("anyOf", "default")}
        about = parts[0] | rest if len(parts) == 1 else rest | {"anyOf": parts}
    return about


class Form(BaseModel):
    """A request: a form in Prefect's UI, the options of a command, a Python signature."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_as_form, hide_input_in_errors=True)
    first: ClassVar[tuple[str, ...]] = ()

    @property
    def verb(self) -> str:
        """The name of the command and of the flow."""
        return type(self).__name__.removesuffix("Request").lower()

    @property
    def says(self) -> str:
        """What is asked for, in a line without credentials, such as develop archive: s3://in -> s3://out."""
        said = {
            name: getattr(self, name, None) for name in ("recipe", "suite", "task", "source", "destination", "model")
        }
        what = said["recipe"] or said["suite"] or said["task"]
        if isinstance(what, dict):
            what = what.get("name", "own recipe")
        elif what:
            what = Path(str(what)).stem
        source = ", ".join(said["source"]) if isinstance(said["source"], tuple) else said["source"]
        ends = " -> ".join(str(end) for end in (source, said["destination"] or said["model"]) if end)
        return without_credentials(f"{self.verb} {what}: {ends}" if what else f"{self.verb} {ends}")[:200]


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Darkroom."""
    return sorted(path.stem for path in (_ROOT / "pipeline/requests/recipes").glob("*.yaml"))


def shipped_models(*tasks: str) -> list[str]:
    """Names of the models for these tasks that come with Darkroom; of all, where none is named."""
    return [card.name for card in list_cards() if not tasks or card.task in tasks]


@dataclass(frozen=True)
class Offer:
    """Of a text field: `names` to choose from, or what is called `other`, such as the URL of one's own."""

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


@dataclass(frozen=True)
class _RecipeOffer(Offer):
    """Likewise, or a recipe that is written into the form."""

    def __call__(self, schema: dict[str, Any]) -> None:
        super().__call__(schema)
        _inline_recipe(schema)


def offering(names: Callable[[], list[str]], other: str) -> Any:
    """What an `Offer` makes of a field."""
    return Field(json_schema_extra=Offer(names, other))


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
