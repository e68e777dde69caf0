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
        for name, field in reversed(model.model_fields.items()):
            if name not in hidden:
                command = (_argument if name in arguments else _option)(name, field)(command)
        return command

    return decorate


def build(model: type[BaseModel], values: dict[str, Any]) -> Any:
    """The request from what the user typed; a value out of bounds is a usage error that names its option."""
    given = {name: value for name, value in values.items() if value is not None and value != ()}
    try:
        return model(**given)
    except ValidationError as error:
        told = [f"--{str(e['loc'][0]).replace('_', '-')}: {e['msg']}" for e in error.errors() if e["loc"]]
        raise click.UsageError("; ".join(told) or str(error)) from error


def _argument(name: str, field: FieldInfo) -> Any:
    many = get_origin(field.annotation) is tuple
    return click.argument(name, nargs=-1 if many else 1, required=True, metavar=name.upper() + ("..." if many else ""))


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
    if get_origin(kind) is tuple:
        return click.option(flag, name, multiple=True, help=f"{text}; may be given several times")
    return click.option(flag, name, type=kind if kind in (int, float) else str, default=None, help=text + default)


def _without_none(annotation: Any) -> Any:
    """`int | None` to `int`, `str | dict` to `str`: what a shell can say."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation
