"""Commands made from functions and request models, so that options and requests cannot drift apart."""

from __future__ import annotations

import json
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from inspect import cleandoc
from typing import Any, Literal, Union, get_args, get_origin

import click
from click.shell_completion import CompletionItem
from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from rich.text import Text

from flows.command.console import manner, out, speak
from flows.command.exit_codes import guarded
from pipeline.requests.form import field_order
from pipeline.steps.offers import Offer

Work = Callable[..., int | None]
#: stands for a hyphen while help is laid out
_HYPHEN = "\ue000"
#: characters that a line of help has at least
_NARROWEST = 68


def command(
    request: type[BaseModel] | None = None,
    *,
    examples: Sequence[tuple[str, str]],
    arguments: tuple[str, ...] = (),
    prefect: bool = False,
    dry_run: bool = False,
    reports: bool = True,
) -> Callable[[Work], click.Command]:
    """Make a command of a function that does its work and returns the exit code, or None for 0.

    With a `request` it is called with one, made of an option for every field; those in `arguments` are positional, and
    S3 access is for Python alone, but for who pays. `prefect` and `dry_run` add options that the function takes by
    these names, `reports` those of how it speaks. `examples` are commands, and what each does, for the help.
    """

    def decorate(work: Work) -> click.Command:
        @wraps(work)
        def called(**values: Any) -> None:
            if reports:
                speak(values.pop("as_json"), values.pop("quiet"), values.pop("verbose"))
            if values.pop("requester_pays", False):
                # like all other S3 access, and known to every process that is started from here
                os.environ["DARKROOM_S3_REQUESTER_PAYS"] = "true"
            more = {name: values.pop(name) for name, added in (("prefect", prefect), ("dry_run", dry_run)) if added}
            if request:
                values = {"request": build(request, values)}
                if manner.verbose:
                    _show_request(values["request"])
            sys.exit(guarded(lambda: work(**values, **more) or 0))

        more_options = [_DRY_RUN] * dry_run + [_PREFECT] * prefect + [_REQUESTER_PAYS] * bool(request)
        for option in (_SPEAKING if reports else []) + more_options:
            called = option(called)
        if request:
            called = _request_options(request, arguments)(called)
        made = click.command(work.__name__.replace("_", "-"), cls=Taught)(called)
        made.examples = examples
        for argument in made.params:
            if isinstance(argument, click.Argument) and argument.metavar and isinstance(argument.type, click.Choice):
                made.help = (
                    f"{cleandoc(made.help or '')}\n\n{argument.metavar} is one of {', '.join(argument.type.choices)}."
                )
        return made

    return decorate


class Help(click.HelpFormatter):
    """Help that breaks lines at spaces alone: an option or a name that breaks at its hyphens cannot be copied.

    It is never narrower than the longest of them need.
    """

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        super().__init__(indent_increment, width, max_width)
        self.width = max(self.width, _NARROWEST)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, _joined(args), prefix)

    def write_text(self, text: str) -> None:
        super().write_text(_joined(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(_joined(name), _joined(says)) for name, says in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        return super().getvalue().replace(_HYPHEN, "-")


def _joined(text: str) -> str:
    """Put in place of hyphens what no line is broken at."""
    return text.replace("-", _HYPHEN)


class Context(click.Context):
    """A context whose help breaks no name."""

    formatter_class = Help


class Taught(click.Command):
    """A command whose help has examples, before its options."""

    context_class = Context

    examples: Sequence[tuple[str, str]] = ()

    def get_short_help_str(self, limit: int = 45) -> str:
        # click cuts the sentence at its limit; its first clause says enough, and is wrapped where it is long
        return " ".join(re.split(r"[:;.](?=\s|$)", self.help or "", maxsplit=1)[0].split())

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        with formatter.section("Examples"):
            for line, says in self.examples:
                formatter.write(f"{' ' * formatter.current_indent}# {says}\n")
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def _request_options(model: type[BaseModel], arguments: tuple[str, ...]) -> Any:
    def decorate(command: Any) -> Any:
        for name in reversed(field_order(model)):
            command = (_argument if name in arguments else _option)(name, model.model_fields[name])(command)
        return command

    return decorate


_PREFECT = click.option(
    "--prefect/--no-prefect",
    default=None,
    help="run as a Prefect flow, or plainly in this process  [default: a flow where Prefect has an API]",
)
_REQUESTER_PAYS = click.option(
    "--requester-pays", is_flag=True, help="pay for requests to S3 buckets whose readers pay"
)
_DRY_RUN = click.option("--dry-run", is_flag=True, help="say what would be done and how much it is, and write nothing")
_SPEAKING = [
    click.option(
        "-v", "--verbose", is_flag=True, help="also the whole request, times by stage, logs, where errors are"
    ),
    click.option("-q", "--quiet", is_flag=True, help="print errors only; the exit code says how it ended"),
    click.option("--json", "as_json", is_flag=True, help="print the result, and nothing else, as JSON"),
]


def _show_request(request: BaseModel) -> None:
    given = request.model_dump(mode="json", exclude_none=True)
    out.print(Text(f"request  {json.dumps(given)}", style="dim"))


def build(model: type[BaseModel], values: dict[str, Any]) -> Any:
    """Build the request from what the user typed, by names of options.

    Raises UsageError, which names the option, for a value out of bounds.
    """
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
        # the help lists them; in the usage line they would break at their hyphens
        return click.argument(name, type=click.Choice(get_args(field.annotation)), metavar=name.upper())
    many = get_origin(field.annotation) is tuple
    metavar = name.upper() + ("..." if many else "")
    complete = _completion(field)
    if not field.is_required():
        return click.argument(name, required=False, metavar=f"[{metavar}]", shell_complete=complete)
    return click.argument(name, nargs=-1 if many else 1, required=True, metavar=metavar, shell_complete=complete)


def _option(name: str, field: FieldInfo) -> Any:
    flag = f"--{name.replace('_', '-')}"
    kind = _without_none(field.annotation)
    text = field.description or ""
    if kind is bool:
        flag = f"{flag}/--no-{name.replace('_', '-')}"
        return click.option(flag, name, default=None, help=f"{text}  [default: {'yes' if field.default else 'no'}]")
    default = "" if field.default in (None, ()) else f"  [default: {field.default}]"
    default = "  [required]" if field.is_required() else default
    if get_origin(kind) is Literal:
        return click.option(flag, name, type=click.Choice(get_args(kind)), default=None, help=text + default)
    if get_origin(kind) is tuple and Ellipsis not in get_args(kind):
        return click.option(flag, name, nargs=len(get_args(kind)), type=str, default=None, help=text)
    if get_origin(kind) is tuple:
        choices = [get_args(part) for part in get_args(kind) if get_origin(part) is Literal]
        several = click.Choice(choices[0]) if choices else str
        return click.option(flag, name, type=several, multiple=True, help=f"{text}; may be given several times")
    # sizes may have units, which the model reads
    if kind in (int, float) and not any(isinstance(item, BeforeValidator) for item in field.metadata):
        return click.option(flag, name, type=kind, default=None, help=text + default)
    return click.option(flag, name, default=None, help=text + default, shell_complete=_completion(field))


def _completion(field: FieldInfo) -> Any:
    """Make what completes an option's value in a shell: names to choose from, where there are any, and files."""

    def complete(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        offer = field.json_schema_extra
        names = offer.names() if isinstance(offer, Offer) else []
        found = [CompletionItem(name) for name in names if name.startswith(typed)]
        return found or [CompletionItem(typed, type="file")]

    return complete


def _without_none(annotation: Any) -> Any:
    """Reduce `int | None` to `int` and `str | dict` to `str`: what a shell can say."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation
