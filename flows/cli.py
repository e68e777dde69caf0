"""The `darkroom` command."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import click
from rich.markup import escape

from flows.options import build, request_options

# before Prefect and Dask are imported: they read their settings then, and their own logs would drown the progress bars
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from pipeline.request import (
    AssembleRequest,
    CompressRequest,
    DecompressRequest,
    DevelopRequest,
    EvaluateRequest,
    ExploreRequest,
    GcRequest,
    GenerateRequest,
    RequestError,
    SearchRequest,
    SweepRequest,
    TrainRequest,
    VerifyRequest,
)

#: exit codes
FAILED, USAGE, STORAGE, INTERRUPTED = 1, 2, 3, 130


def run() -> None:
    """The shell's command: `main` in a process of its own, which it may end."""
    ended: list[int] = []
    # before a command imports its libraries, and so called after all that they register
    atexit.register(_leave, ended)
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    _keep_errors_apart()
    try:
        main()
    except SystemExit as end:
        ended.append(end.code if isinstance(end.code, int) else FAILED)
        raise


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
@click.argument("destination", default="./out")
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def demo(**values: Any) -> None:
    """Develop some two dozen pictures that scikit-image brings along to DESTINATION, ./out by default."""
    from flows import demo as shown

    sys.exit(_guarded(lambda: shown.demo(**values)))


@main.command()
@request_options(CompressRequest, arguments=("source", "destination"), hidden=("source_storage", "destination_storage"))
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def compress(prefect: bool, **values: Any) -> None:
    """Compress every picture of SOURCE to a .drk stream in DESTINATION, with tables of what was measured.

    A SOURCE that is one file is compressed to the file DESTINATION, in this process, and nothing else is written.
    """
    from flows import show_compression

    request = build(CompressRequest, values)
    sys.exit(_guarded(lambda: show_compression.compress(request, prefect)))


@main.command()
@request_options(
    DecompressRequest, arguments=("source", "destination"), hidden=("source_storage", "destination_storage")
)
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def decompress(prefect: bool, **values: Any) -> None:
    """Decompress every .drk stream of SOURCE to a picture in DESTINATION.

    A SOURCE that is one file is decompressed to the file DESTINATION, in this process, and nothing else is written.
    """
    from flows import show_compression

    request = build(DecompressRequest, values)
    sys.exit(_guarded(lambda: show_compression.decompress(request, prefect)))


@main.command()
@request_options(VerifyRequest, arguments=("destination",), hidden=("source_storage", "destination_storage"))
@click.option("--json", "json_file", metavar="FILE", help="write all findings there, for programs")
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def verify(prefect: bool, json_file: str | None, **values: Any) -> None:
    """Check all that runs have left at DESTINATION against their commits: existence, size, checksum, rows."""
    from flows import show_verification

    request = build(VerifyRequest, values)
    sys.exit(_guarded(lambda: show_verification.verify(request, prefect, json_file)))


@main.command()
@request_options(GcRequest, arguments=("destination",), hidden=("destination_storage",))
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def gc(prefect: bool, **values: Any) -> None:
    """Remove what killed runs have left at DESTINATION: objects that no commit names."""
    from flows import show_verification

    request = build(GcRequest, values)
    sys.exit(_guarded(lambda: show_verification.gc(request, prefect)))


@main.command()
@request_options(AssembleRequest, arguments=("source", "destination"), hidden=("source_storage", "destination_storage"))
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def assemble(prefect: bool, **values: Any) -> None:
    """Put the frames that a run left at SOURCE together again: animations, pages, videos, stacks, at DESTINATION."""
    from flows import show_assembly

    request = build(AssembleRequest, values)
    sys.exit(_guarded(lambda: show_assembly.assemble(request, prefect)))


@main.command()
@request_options(EvaluateRequest, arguments=("source", "destination"), hidden=("source_storage", "destination_storage"))
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def evaluate(prefect: bool, **values: Any) -> None:
    """Compare codecs on every picture of SOURCE: rates, qualities, times, BD-rates and a report in DESTINATION.

    With --suite: restorations under the field's protocols, beside classical baselines and published figures.
    """
    from flows import show_evaluation

    request = build(EvaluateRequest, values)
    sys.exit(_guarded(lambda: show_evaluation.evaluate(request, prefect)))


@main.command()
@request_options(ExploreRequest, arguments=("source", "destination"), hidden=("source_storage", "destination_storage"))
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def explore(prefect: bool, **values: Any) -> None:
    """Explore the latents of a run: maps, clusters, neighbours, near-duplicates, anomalies, as tables and one page.

    SOURCE is the destination of a run that left latents, or pictures, which are first represented in DESTINATION.
    """
    from flows import show_exploration

    request = build(ExploreRequest, values)
    sys.exit(_guarded(lambda: show_exploration.explore(request, prefect)))


@main.command()
@request_options(
    SearchRequest, arguments=("picture", "run"), hidden=("picture_storage", "source_storage", "run_storage")
)
@click.option("--json", "as_json", is_flag=True, help="print JSON, a list of keys with their similarities")
def search(as_json: bool, **values: Any) -> None:
    """Find the pictures most like PICTURE among those that RUN, a run's destination, has latents of."""
    from flows import show_exploration

    request = build(SearchRequest, values)
    sys.exit(_guarded(lambda: show_exploration.search(request, as_json)))


@main.command()
@request_options(TrainRequest, arguments=("task", "source", "model"), hidden=("source_storage",))
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def train(prefect: bool, **values: Any) -> None:
    """Train a network on every picture below SOURCE...; weights, card and a report go to the URL MODEL.

    Again means on: the same command resumes from its checkpoint. On several GPUs, without Prefect:
    torchrun --standalone --nproc-per-node 2 --no-python darkroom train ...
    """
    from flows import display

    request = build(TrainRequest, values)
    sys.exit(_guarded(lambda: display.train(request, prefect)))


@main.command()
@request_options(GenerateRequest, arguments=("model", "destination"), hidden=("source_storage", "destination_storage"))
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def generate(prefect: bool, **values: Any) -> None:
    """Make new pictures with an autoencoder, by name or URL, and write them, grids and a page to DESTINATION.

    Samples from its prior, or from a mixture fitted to the latents of --source; a way between two pictures
    (--interpolate A B); what each number of the latent does to a picture (--traverse PICTURE).
    """
    from flows import show_generation

    request = build(GenerateRequest, values)
    sys.exit(_guarded(lambda: show_generation.generate(request, prefect)))


@main.command()
@request_options(SweepRequest, arguments=("task", "source", "destination"), hidden=("source_storage",))
@click.option("--prefect/--no-prefect", default=True, help="run as a Prefect flow, or plainly in this process")
def sweep(prefect: bool, **values: Any) -> None:
    """Search for the best sizes, losses and rates: one training a trial; table, page and weights go to DESTINATION.

    Again means on: the same command goes on with the trials that are left, and with more of them if --trials says so.
    """
    from flows import show_sweep

    request = build(SweepRequest, values)
    sys.exit(_guarded(lambda: show_sweep.sweep(request, prefect)))


@main.command()
@click.argument("model")
@click.argument("url")
def export(model: str, url: str) -> None:
    """Write a restoration MODEL, a shipped one by name or any by its URL, as an ONNX file to URL, ending in .onnx.

    Steps take the file as their `model` and run it under onnxruntime; so can any other program. Needs darkroom[onnx].
    """
    from flows import show_export

    sys.exit(_guarded(lambda: show_export.export(model, url)))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="address that the server listens on")
@click.option("--port", default=4200, show_default=True, type=click.IntRange(1, 65535), help="its port")
@click.option("--work-pool", default="darkroom", show_default=True, help="process work pool, made where there is none")
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1, 64), help="runs at a time; others wait")
def serve(**values: Any) -> None:
    """Serve every flow from this machine: a Prefect server with its UI, deployments and a worker, until Ctrl-C.

    With PREFECT_API_URL set, deployments and worker go to that server instead, and no server is started.
    """
    from flows import serve as served

    sys.exit(_guarded(lambda: served.serve(**values)))


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


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def info(files: tuple[str, ...]) -> None:
    """Show what .drk FILEs (paths or URLs) say of themselves: size, quality, model, and how their bytes split."""
    from flows import show_stream

    worst = 0
    for file in files:
        worst = max(worst, _guarded(partial(show_stream.info, file)))
        if worst == INTERRUPTED:
            break
    sys.exit(worst)


def _guarded(work: Callable[[], int]) -> int:
    """Run a command; what went wrong becomes one line for people and an exit code."""
    from rich.console import Console

    from flows.serve import ServeError
    from models.checkpoint import CheckpointError
    from models.codec.entropy_coder import StreamError
    from models.data import DataError
    from models.distributed import DistributedError
    from models.registry import ModelError
    from models.training import TrainingError
    from pipeline.lease import LeaseLost
    from pipeline.picture import PictureError
    from pipeline.plan import PlanError
    from pipeline.recipe import RecipeError
    from pipeline.run import RunError
    from pipeline.shard import Cancelled
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
        DistributedError: FAILED,
        TrainingError: FAILED,
        StreamError: FAILED,
        PictureError: FAILED,
        RunError: FAILED,
        LeaseLost: FAILED,
        ServeError: FAILED,
        OSError: STORAGE,
        RequestError: USAGE,
    }
    complain = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        code = work()
    except (KeyboardInterrupt, Cancelled):
        complain.print("stopped; the same command goes on where this one ended", style="yellow")
        code = INTERRUPTED
    except tuple(codes) as error:
        code = next(code for kind, code in codes.items() if isinstance(error, kind))
        complain.print(f"[bold red]error[/] {escape(_tame(str(error)))}")
    return code


def _tame(text: str) -> str:
    """The text without what a terminal would obey, such as escape sequences in the name of an object."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C or SIGTERM: KeyboardInterrupt, but a moment later where a request to Prefect's server is under way.

    Raised inside one it can leave the lock of the connections held, and the next request waits for it for ever.
    """
    inside = frame
    while inside:
        if inside.f_globals.get("__name__", "").startswith("httpcore."):
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
            return
        inside = inside.f_back
    raise KeyboardInterrupt


def _keep_errors_apart() -> None:
    """What C libraries print of broken pictures goes nowhere: rows of `failures` say it, without tearing the bars."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _leave(ended: list[int]) -> None:
    """End the process with its last code, without taking the interpreter down.

    Threads of libraries (PyArrow's that let go of what they read, a decoder that hangs, a picture in work when Ctrl-C
    came) may be inside C++ that calls Python: taken down under them the interpreter ends them there, and the process
    aborts (https://github.com/python/cpython/issues/87135).
    """
    if ended:
        logging.shutdown()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended[-1])
