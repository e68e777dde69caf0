"""Forms: the fields of a request as forms and commands show them, and sizes as people write them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import SkipJsonSchema

from pipeline.storage.access import StorageOptions, without_credentials

#: for Python alone: a form would send secrets to Prefect's database, which takes the names of blocks instead
Storage = SkipJsonSchema[StorageOptions | None]

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{rest}": base**power
    for power, letter in enumerate("kmgt", 1)
    for rest, base in (("", 1000), ("b", 1000), ("ib", 1024), ("i", 1024))
}


def field_order(model: type[BaseModel]) -> list[str]:
    """Return the names of the fields that forms and commands show: its `first`, those that only it has, the rest."""
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
    """Return the schema of a field for people: a title in words, and one that may be left out is empty, not "None"."""
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

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra=_as_form, hide_input_in_errors=True, defer_build=True
    )
    first: ClassVar[tuple[str, ...]] = ()

    @property
    def verb(self) -> str:
        """Name of the command and of the flow."""
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


def parse_size(text: str) -> int:
    """Return a size in bytes, at least 1: `512 MB` and `512M` are 512,000,000, `512 MiB` is 536,870,912.

    Raises ValueError.
    """
    found = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*", text)
    if not found or found[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write it like 512 MB, 2 GiB or 1048576")
    size = (
        int(float(found[1]) * _UNITS[found[2].lower()]) if "." in found[1] else int(found[1]) * _UNITS[found[2].lower()]
    )
    if size < 1:
        raise ValueError(f"{text!r} is no size; it must be at least one byte")
    return size
