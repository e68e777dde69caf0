"""Command-line options made from a request model, so that the two cannot drift apart."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Command = TypeVar("Command", bound=Callable[..., Any])


def request_options(model: type[BaseModel], *, arguments: tuple[str, ...], hidden: tuple[str, ...] = ()) -> Any:
    """Decorate a command with one option for every field of the model.

    Fields named in `arguments` become positional; those in `hidden` are for Python and Prefect only.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(model.model_json_schema()["properties"]):
            if name not in hidden:
                command = (_argument if name in arguments else _option)(name, model.model_fields[name])(command)
        return command

    return decorate


def build(model: type[BaseModel], values: dict[str, Any]) -> Any:
    """The request from what the user typed; a value out of bounds is a usage error that names its option."""
    given = {name: value for name, value in values.items() if value is not None and value != ()}
    try:
        return model(**given)
    except ValidationError as error:
        # what is wrong with several fields together belongs to none of them
        names = [f"--{str(e['loc'][0]).replace('_', '-')}: " if e["loc"] else "" for e in error.errors()]
        told = [name + e["msg"].removeprefix("Value error, ") for name, e in zip(names, error.errors(), strict=True)]
        raise click.UsageError("; ".join(told)) from error


def _argument(name: str, field: FieldInfo) -> Any:
    if get_origin(field.annotation) is Literal:
        return click.argument(name, type=click.Choice(get_args(field.annotation)))
    many = get_origin(field.annotation) is tuple
    metavar = name.upper() + ("..." if many else "")
    if not field.is_required():
        return click.argument(name, required=False, metavar=f"[{metavar}]")
    return click.argument(name, nargs=-1 if many else 1, required=True, metavar=metavar)


def _option(name: str, field: FieldInfo) -> Any:
    flag = f"--{name.replace('_', '-')}"
    kind = _without_none(field.annotation)
    text = field.description or ""
    if kind is bool:
        flag = f"{flag}/--no-{name.replace('_', '-')}"
        return click.option(flag, name, default=None, help=f"{text}  [default: {'yes' if field.default else 'no'}]")
    default = "" if field.default in (None, ()) else f"  [default: {field.default}]"
    if get_origin(kind) is Literal:
        return click.option(flag, name, type=click.Choice(get_args(kind)), default=None, help=text + default)
    if get_origin(kind) is tuple and Ellipsis not in get_args(kind):
        return click.option(flag, name, nargs=len(get_args(kind)), type=str, default=None, help=text)
    if get_origin(kind) is tuple:
        choices = [get_args(part) for part in get_args(kind) if get_origin(part) is Literal]
        several = click.Choice(choices[0]) if choices else str
        return click.option(flag, name, type=several, multiple=True, help=f"{text}; may be given several times")
    return click.option(flag, name, type=kind if kind in (int, float) else str, default=None, help=text + default)


def _without_none(annotation: Any) -> Any:
    """`int | None` to `int`, `str | dict` to `str`: what a shell can say."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation
