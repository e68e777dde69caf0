"""The `darkroom` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.markup import escape

from flows.options import build, request_options

# before Prefect is imported: it reads its settings then, and its own log would drown the progress bars
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from pipeline.request import DevelopRequest, RequestError, TrainRequest

#: exit codes
FAILED, USAGE, STORAGE, INTERRUPTED = 1, 2, 3, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="darkroom")
def main() -> None:
    """Develop image sets: enhance, restore, compress, measure; from a folder or bucket to a folder or bucket.

    Exit codes: 0 done, 1 the run failed, 2 wrong usage, 3 storage refused or not found, 130 interrupted.
    """


@main.command()
@request_options(DevelopRequest, arguments=("source", "destination"), hidden=("source_storage", "destination_storage"))
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def develop(prefect: bool, **values: Any) -> None:
    """Run a recipe over every picture of SOURCE and write pictures, streams and tables to DESTINATION."""
    from flows import display

    request = build(DevelopRequest, values)
    sys.exit(_guarded(lambda: display.develop(request, prefect)))


@main.command()
@request_options(TrainRequest, arguments=("source", "model"), hidden=("source_storage",))
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def train(prefect: bool, **values: Any) -> None:
    """Train a network on every picture below SOURCE... and keep its weights and card at the URL MODEL."""
    from flows import display

    request = build(TrainRequest, values)
    sys.exit(_guarded(lambda: display.train(request, prefect)))


@main.command()
def recipes() -> None:
    """List the shipped recipes with their branches."""
    from flows import display

    display.recipes()


@main.command()
@click.argument("name", required=False)
def steps(name: str | None) -> None:
    """List what a recipe can do to a picture; with NAME, one step's parameters."""
    from flows import display

    sys.exit(_guarded(lambda: display.steps(name)))


@main.command()
def models() -> None:
    """List the shipped models with what was measured of them."""
    from flows import display

    display.models()


def _guarded(work: Callable[[], int]) -> int:
    """Run a command; what went wrong becomes one line for people and an exit code."""
    from rich.console import Console

    from models.checkpoint import CheckpointError
    from models.data import DataError
    from models.registry import ModelError
    from models.training import TrainingError
    from pipeline.plan import PlanError
    from pipeline.recipe import RecipeError
    from pipeline.run import RunError
    from pipeline.steps.registry import UnknownStepError
    from pipeline.storage import StorageError

    codes: dict[type[Exception], int] = {
        StorageError: STORAGE,
        PlanError: USAGE,
        RecipeError: USAGE,
        ModelError: USAGE,
        DataError: USAGE,
        CheckpointError: USAGE,
        UnknownStepError: USAGE,
        TrainingError: FAILED,
        RunError: FAILED,
        OSError: STORAGE,
        RequestError: USAGE,
    }
    complain = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        return work()
    except (KeyboardInterrupt, InterruptedError):
        complain.print("stopped; the same command goes on where this one ended", style="yellow")
        return INTERRUPTED
    except tuple(codes) as error:
        code = next(code for kind, code in codes.items() if isinstance(error, kind))
        complain.print(f"[bold red]error[/] {escape(str(error))}")
        return code
