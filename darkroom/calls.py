"""What the face does: each function makes a request of its arguments, and carries it out in this process.

Options are those of the command of the same name, with underscores; `docs/commands.md` has them all. What is about
Prefect (the engine dask, its cluster, blocks) is for commands and flows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from pydantic import BaseModel, ValidationError

from darkroom import options as face
from darkroom.options import Location
from pipeline.errors import RequestError
from pipeline.events import Tell, silent

if TYPE_CHECKING:
    from models.cards import Card
    from pipeline.destination.run_record import Summary
    from pipeline.evaluation.rate_distortion import Evaluation
    from pipeline.exploration.explore import Exploration
    from pipeline.exploration.search import Found
    from pipeline.generation.results import Generation
    from pipeline.runs.forecast import Forecast
    from pipeline.runs.single_file import FileReport
    from pipeline.suites.conclude import SuiteEvaluation
    from pipeline.training.sweep import SweepSummary
    from pipeline.upkeep.assemble import Assembled
    from pipeline.upkeep.check import Verification
    from pipeline.upkeep.collect import Collection

__all__ = [
    "assemble",
    "collect",
    "compress",
    "compress_file",
    "decompress",
    "decompress_file",
    "develop",
    "evaluate",
    "explore",
    "forecast",
    "generate",
    "search",
    "sweep",
    "train",
    "verify",
]

#: fields of requests that only Prefect can carry out
OF_PREFECT = frozenset({"engine", "cluster", "source_block", "destination_block"})
_Request = TypeVar("_Request", bound=BaseModel)


def develop(
    source: Location,
    destination: Location,
    *,
    recipe: Location | Mapping[str, Any] = "default",
    tell: Tell = silent,
    **options: Unpack[face.DevelopOptions],
) -> Summary:
    """Develop an image set: run a recipe over every picture of a source, measure, and write to a destination.

    `recipe` is the name of a shipped one, a YAML file, or what such a file says. Only pictures that are new or changed
    are developed; a run that was stopped is gone on with. `tell` is given every event (`darkroom.events`), such as
    `Advanced` for each picture.

    Raises RequestError, RecipeError, PlanError, ModelError and StorageError before anything is written where the
    request cannot be met, LeaseHeld where another run is at work, StorageError when storage fails for good. A picture
    that cannot be developed is a row of the table `failures`, and counted in the summary.
    """
    from pipeline.requests.pictures import DevelopRequest
    from pipeline.runs.finish import develop as run

    request = _asked(DevelopRequest, options, source=source, destination=destination, recipe=recipe)
    return run(request, tell=tell)


def forecast(
    source: Location,
    destination: Location,
    *,
    recipe: Location | Mapping[str, Any] = "default",
    **options: Unpack[face.DevelopOptions],
) -> Forecast:
    """Say what `develop` with the same arguments would do, without writing anything.

    Raises RequestError, RecipeError, PlanError, ModelError, StorageError.
    """
    from pipeline.requests.job import check_request
    from pipeline.requests.pictures import DevelopRequest
    from pipeline.runs.forecast import forecast as look

    request = _asked(DevelopRequest, options, source=source, destination=destination, recipe=recipe)
    return look(check_request(request))


def compress(
    source: Location,
    destination: Location,
    *,
    tell: Tell = silent,
    **options: Unpack[face.CompressOptions],
) -> Summary:
    """Compress an image set to .drk streams with the learned codec, at a quality or to a target, and measure each.

    Raises what `develop` raises.
    """
    from pipeline.requests.compression import compression
    from pipeline.requests.pictures import CompressRequest
    from pipeline.runs.finish import develop as run

    request = _asked(CompressRequest, options, source=source, destination=destination)
    return run(compression(request), tell=tell)


def decompress(
    source: Location,
    destination: Location,
    *,
    tell: Tell = silent,
    **options: Unpack[face.DecompressOptions],
) -> Summary:
    """Decompress all .drk streams of a source to pictures, or to a part of each.

    Raises what `develop` raises.
    """
    from pipeline.requests.compression import decompression
    from pipeline.requests.pictures import DecompressRequest
    from pipeline.runs.finish import develop as run

    request = _asked(DecompressRequest, options, source=source, destination=destination)
    return run(decompression(request), tell=tell)


def compress_file(source: Location, destination: Location, **options: Unpack[face.CompressOptions]) -> FileReport:
    """Compress one picture to one .drk file; the stream is decoded once before it is written.

    Raises PictureError (the message names the file), RequestError, ModelError, StorageError.
    """
    from pipeline.requests.pictures import CompressRequest
    from pipeline.runs.single_file import compress_file as work

    return work(_asked(CompressRequest, options, source=source, destination=destination))


def decompress_file(source: Location, destination: Location, **options: Unpack[face.DecompressOptions]) -> FileReport:
    """Decompress one .drk file to one picture, in the format that the destination's name says.

    Raises PictureError (the message names the file), RequestError, ModelError, StorageError.
    """
    from pipeline.requests.pictures import DecompressRequest
    from pipeline.runs.single_file import decompress_file as work

    return work(_asked(DecompressRequest, options, source=source, destination=destination))


@overload
def evaluate(
    source: Location,
    destination: Location,
    *,
    suite: None = None,
    tell: Tell = ...,
    **options: Unpack[face.EvaluateOptions],
) -> Evaluation: ...
@overload
def evaluate(
    source: Location,
    destination: Location,
    *,
    suite: face.Suite,
    tell: Tell = ...,
    **options: Unpack[face.EvaluateOptions],
) -> SuiteEvaluation: ...
def evaluate(
    source: Location,
    destination: Location,
    *,
    suite: face.Suite | None = None,
    tell: Tell = silent,
    **options: Unpack[face.EvaluateOptions],
) -> Evaluation | SuiteEvaluation:
    """Compare codecs on the pictures of a source or, with a suite, restorations; write tables, figures and a report.

    Raises RequestError for what cannot be compared, and what `develop` raises.
    """
    from pipeline.requests.pictures import EvaluateRequest

    request = _asked(EvaluateRequest, options, source=source, destination=destination, suite=suite)
    if suite:
        from pipeline.suites.run import evaluate_suite

        return evaluate_suite(request, tell=tell)
    from pipeline.evaluation.evaluate import evaluate as compare

    return compare(request, tell=tell)


def explore(
    source: Location,
    destination: Location = "",
    *,
    tell: Tell = silent,
    **options: Unpack[face.ExploreOptions],
) -> Exploration:
    """Explore what latents say of pictures: maps, clusters, neighbours, near-duplicates, anomalies, and one page.

    `source` is the destination of a run that left latents, or pictures, which are first represented in `destination`.
    Raises RequestError where there is nothing to explore, and what `develop` raises.
    """
    from pipeline.exploration.explore import explore as look
    from pipeline.requests.models import ExploreRequest

    request = _asked(ExploreRequest, options, source=source, destination=destination)
    return look(request, tell=tell)


def search(picture: Location, run: Location, **options: Unpack[face.SearchOptions]) -> Found:
    """Find the pictures most like a given one among those that a run, named by its destination, has latents of.

    Raises RequestError, ModelError, PictureError, StorageError.
    """
    from pipeline.exploration.search import search as look
    from pipeline.requests.models import SearchRequest

    return look(_asked(SearchRequest, options, picture=picture, run=run))


def generate(model: Location, destination: Location, **options: Unpack[face.GenerateOptions]) -> Generation:
    """Make new pictures with an autoencoder: samples, a way between two pictures, what each number of a latent does.

    Raises RequestError, ModelError, DataError, PictureError, StorageError.
    """
    from pipeline.generation.generate import generate as work
    from pipeline.requests.models import GenerateRequest

    return work(_asked(GenerateRequest, options, model=model, destination=destination))


def train(
    task: face.Task,
    source: Location | Sequence[Location],
    model: Location,
    *,
    tell: Tell = silent,
    **options: Unpack[face.TrainOptions],
) -> Card | None:
    """Train a network on all pictures below the sources; weights, card and a report go to the URL `model`.

    The same call resumes from its checkpoint. `tell` is given `Read`, `Noted`, and `Stepped` for every step. Returns
    the card; None in the processes of torchrun but the first. Ctrl-C ends it after the step at hand, with a checkpoint,
    as KeyboardInterrupt.
    Raises RequestError, DataError, CheckpointError, TrainingError, DistributedError, StorageError.
    """
    from pipeline.requests.models import TrainRequest
    from pipeline.training.train import run_training

    request = _asked(TrainRequest, options, task=task, source=_several(source), model=model)
    return run_training(request, tell)


def sweep(
    task: face.Task,
    source: Location | Sequence[Location],
    destination: Location,
    *,
    space: Location | Mapping[str, Any],
    tell: Tell = silent,
    **options: Unpack[face.SweepOptions],
) -> SweepSummary:
    """Search for the best sizes, losses and rates of a training: one training a trial, all results at a destination.

    `space` is what is tried: a YAML or JSON file, or what such a file says. The same call goes on with trials that are
    left. Raises RequestError, DataError, CheckpointError, StorageError.
    """
    from pipeline.requests.models import SweepRequest
    from pipeline.training.sweep import run_sweep

    named = {"task": task, "source": _several(source), "destination": destination, "space": space}
    return run_sweep(_asked(SweepRequest, options, **named), tell)


def verify(destination: Location, *, tell: Tell = silent, **options: Unpack[face.VerifyOptions]) -> Verification:
    """Check every object and row that runs have left at a destination; with `repair`, do again what is wrong.

    Raises PlanError where there is no run, StorageError, and for repairs LeaseHeld.
    """
    from pipeline.requests.upkeep import VerifyRequest
    from pipeline.upkeep.verify import verify as check

    return check(_asked(VerifyRequest, options, destination=destination), tell)


def collect(destination: Location, *, tell: Tell = silent, **options: Unpack[face.CollectOptions]) -> Collection:
    """Remove what no commit names at a destination: what killed runs have left. The command calls this `gc`.

    Raises PlanError where there is no run or a commit is not readable, LeaseHeld, StorageError.
    """
    from pipeline.requests.upkeep import GcRequest
    from pipeline.upkeep.collect import collect as tidy

    return tidy(_asked(GcRequest, options, destination=destination), tell)


def assemble(
    source: Location, destination: Location, *, tell: Tell = silent, **options: Unpack[face.AssembleOptions]
) -> list[Assembled]:
    """Put the developed frames of animations, pages, videos and stacks together again, a file for each.

    Raises PlanError (no finished run, no frames, unknown branch), StorageError.
    """
    from pipeline.requests.upkeep import AssembleRequest
    from pipeline.upkeep.assemble import assemble as join

    return join(_asked(AssembleRequest, options, source=source, destination=destination), tell)


def _asked(kind: type[_Request], options: Mapping[str, Any], **named: Any) -> _Request:
    """Make a request of what a function was given. Raises RequestError, which names what is wrong."""
    if of_prefect := sorted(OF_PREFECT & set(options)):
        raise RequestError(
            f"{of_prefect[0]}: only runs under Prefect have it; use the command or the flow, or leave it out"
        )
    try:
        return kind(**{name: _plain(value) for name, value in (named | dict(options)).items()})
    except ValidationError as error:
        told = [
            ": ".join([*map(str, one["loc"][:1]), one["msg"].removeprefix("Value error, ")]) for one in error.errors()
        ]
        raise RequestError("; ".join(told)) from error


def _plain(value: Any) -> Any:
    """Return paths as text, on their own or in a sequence, and mappings as dicts; everything else as it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _several(source: Location | Sequence[Location]) -> Sequence[Location]:
    return [source] if isinstance(source, str | os.PathLike) else source


for _name in __all__:
    globals()[_name].__module__ = "darkroom"
