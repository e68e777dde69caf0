"""A training run from a Python prompt or under torchrun: pictures in, weights and card out."""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from models.autoencoders.interface import Autoencoder
from models.autoencoders.objective import CONTRAST
from models.cards import Card
from models.device import choose_device
from models.errors import DataError
from models.registry import SIZE_LIMIT
from models.training.checkpoint import Progress
from models.training.data import LeftOut, PictureSource, read_training_set, reasons
from models.training.distributed import ALONE, Ranks, joined, own_device, ranks_from_environment
from models.training.finish import finish
from models.training.logs import tensorboard_log
from models.training.loop import Report, TrainingPlan, train
from models.training.precision import choose_precision
from models.training.small_batches import SmallTrainingSet
from models.training.small_pictures import split_by_name
from models.training.tasks import AUTOENCODER_LOSS, objective_of, suited_rate, task_of
from pipeline.destination.lease import hold
from pipeline.errors import RequestError
from pipeline.events import Noted, Read, Stepped, Tell, silent
from pipeline.requests.models import TrainRequest
from pipeline.requests.stores import beside_sources
from pipeline.storage.files import StoredFiles
from pipeline.training.decoder import DECODER
from pipeline.training.picture_sets import read_picture_set
from pipeline.training.report import picture_sheets, render_training

#: an autoencoder's, where a request says nothing else
AUTOENCODER_SIZES = {"form": "convolutional", "shape": [3, 32, 32]}
#: pictures left out that a note names
_NAMED = 3
#: share of an autoencoder's training pictures that early stopping watches
HELD_OUT_SHARE = 0.05


def run_training(
    request: TrainRequest,
    tell: Tell = silent,
) -> Card | None:
    """Read the pictures, train or resume, save weights, card and a report; return the card.

    Told are `Read`, `Noted` (pictures left out, say) and `Stepped`. Under torchrun every process calls this; only the
    first tells and writes, and only it gets a card. Ctrl-C ends training after the step at hand: the checkpoint is
    written, then KeyboardInterrupt is raised.
    Raises RequestError, DataError, CheckpointError, TrainingError, DistributedError, StorageError.
    """
    ranks = ranks_from_environment()
    plan = plan_of(request, ranks)
    if ranks.first:
        check_writable(request, plan)
    log = tensorboard_log(request.log) if request.log and ranks.first else nullcontext()
    with alone_at(request) if ranks.first else nullcontext(), log as write, joined(ranks, plan.device):
        pictures = read_pictures(request, plan, tell if ranks.first else silent)
        if pictures.left_out and ranks.first:
            tell(Noted(f"{left_out_note(pictures)}: {first_of(pictures.left_out)}"))
        with interruptible(ranks) as stopped:
            network, progress = train(plan, pictures, _reporter(tell, write), stopped, ranks)
            if stopped() and ranks.first:
                raise KeyboardInterrupt
    if not ranks.first:
        return None
    kept = set_aside(request)
    card = keep(request, plan, network, progress, pictures, ranks)
    if kept and not kept.endswith(f"@{card.sha256[:12]}.safetensors"):
        tell(Noted(f"the codec's earlier weights, which its streams need, are kept as {kept}"))
    return card


def set_aside(request: TrainRequest) -> str | None:
    """Copy a codec's weights at the request's model, and their card, to a name with their hash; return its URL.

    Streams name the very weights they were made with, which a further training would overwrite.
    """
    files = StoredFiles(request.source_storage)
    weights = files.read(f"{_stem(request)}.safetensors", SIZE_LIMIT) if request.task == "codec" else None
    if weights is None:
        return None
    kept = f"{_stem(request)}@{hashlib.sha256(weights).hexdigest()[:12]}"
    files.write(f"{kept}.safetensors", weights)
    card = files.read(f"{_stem(request)}.json", SIZE_LIMIT)
    if card is not None:
        files.write(f"{kept}.json", card)
    return f"{kept}.safetensors"


@contextmanager
def alone_at(request: TrainRequest) -> Iterator[None]:
    """Hold the leases of the request's model and checkpoint, so that no two trainings write either at once.

    Raises LeaseHeld, naming who trains there, and StorageError.
    """
    checkpoint = request.checkpoint or f"{_stem(request)}.checkpoint.safetensors"
    urls = dict.fromkeys([_stem(request), checkpoint.removesuffix(".safetensors").removesuffix(".checkpoint")])
    with ExitStack() as held:
        for url in urls:
            folder, _, name = url.replace("\\", "/").rpartition("/")
            store = beside_sources(folder or ".", request)
            held.enter_context(hold(store, request.take_over, f"{name}.lease.json"))
        yield


def keep(
    request: TrainRequest,
    plan: TrainingPlan,
    network: torch.nn.Module,
    progress: Progress,
    pictures: PictureSource,
    ranks: Ranks = ALONE,
) -> Card:
    """Save what was trained: weights, card and report at the request's model; return the card."""
    card = finish(
        f"{_stem(request)}.safetensors",
        network,
        progress,
        pictures,
        data=_data(request, pictures),
        training=plan.command,
        licence=request.licence,
        sizes=plan.sizes,
        device=plan.device,
        ranks=ranks,
        files=plan.files,
    )
    held_out = pictures.held_out_batches(1)[0] if plan.task == "autoencoder" else torch.empty(0)
    page = render_training(card, progress, plan, picture_sheets(network, plan, held_out), pictures)
    plan.files.write(f"{_stem(request)}.html", page.encode())
    return card


def check_writable(request: TrainRequest, plan: TrainingPlan) -> None:
    """Raise StorageError unless weights and checkpoint can be written, which is tried before hours are spent."""
    for url in (plan.checkpoint, f"{_stem(request)}.safetensors"):
        StoredFiles(request.source_storage).check_writable(url)


def _data(request: TrainRequest, pictures: PictureSource) -> str:
    """Say what the pictures were, for the card."""
    used = f"{len(pictures.train):,} pictures of {', '.join(request.source)}"
    return f"{used}; {left_out_note(pictures)}" if pictures.left_out else used


def left_out_note(pictures: PictureSource) -> str:
    """Say how many pictures are left out, and why."""
    count = len(pictures.left_out)
    return f"{count:,} picture{'s' * (count != 1)} left out: {reasons(pictures.left_out)}"


def first_of(left_out: Sequence[LeftOut]) -> str:
    """Name the first pictures that were left out, and say how many more there are."""
    more = len(left_out) - _NAMED
    names = ", ".join(name for name, _ in left_out[:_NAMED])
    return f"{names} and {more:,} more, in the report" if more > 0 else names


def plan_of(request: TrainRequest, ranks: Ranks) -> TrainingPlan:
    """Make a plan of the request, with the task's defaults, this process's device and its precision filled in.

    Raises RequestError when crops or sizes do not fit the network, DistributedError when there are too few GPUs.
    """
    whole = request.task == "autoencoder"
    sizes = (AUTOENCODER_SIZES if whole else {}) | (request.sizes or {})
    try:
        task = task_of(request.task, request.loss, request.corrupt)
        network = task.build(**sizes) if sizes else None
        if isinstance(network, Autoencoder):
            # a term that the form does not have shows when it is asked for
            task.loss(network, torch.zeros(2, *network.shape))
    except (ValueError, TypeError) as error:
        raise RequestError(f"{request.task} cannot be trained like this: {error}") from error
    crop = request.crop or task.crop
    if whole and request.crop:
        raise RequestError("--crop: an autoencoder takes whole pictures; give its shape in --sizes")
    if not whole and (request.augment or request.limit):
        raise RequestError(f"--augment and --limit are about autoencoders; leave them out for {request.task}")
    if not whole and crop % task.multiple:
        raise RequestError(f"--crop {crop}: {request.task} takes multiples of {task.multiple}")
    if request.source_block and not request.source_storage:
        raise RequestError(f"the block {request.source_block!r} is kept in Prefect; leave out --no-prefect or torchrun")
    device = own_device(choose_device(request.device), ranks)
    plan = TrainingPlan(
        task=request.task,
        checkpoint=request.checkpoint or f"{_stem(request)}.checkpoint.safetensors",
        start=request.start,
        steps=request.steps or (None if request.minutes else TrainingPlan.steps),
        minutes=request.minutes,
        batch=request.batch or task.batch,
        crop=crop,
        learning_rate=request.learning_rate or suited_rate(task, request.optimiser),
        optimiser=request.optimiser or task.optimiser,
        weight_decay=request.weight_decay,
        validate_every=request.validate_every,
        patience=request.patience,
        seed=request.seed,
        device=device,
        precision=choose_precision(request.precision, device),
        sizes=sizes,
        loss=(request.loss or AUTOENCODER_LOSS) if whole else None,
        corrupt=request.corrupt,
        augment=request.augment,
        cool_steps=request.cooldown_steps,
        cool_minutes=request.cooldown,
        source=", ".join(request.source),
        licence=request.licence,
        new_chapter=request.new_chapter,
        files=StoredFiles(request.source_storage),
    )
    plan = replace(plan, command=_command(request, plan, ranks))
    if plan.batch is not None and plan.batch < least_pictures(plan):
        raise RequestError("--batch 1: the term contrast compares pictures; give 2 or more, or leave it out of --loss")
    return plan


def read_pictures(request: TrainRequest, plan: TrainingPlan, tell: Tell = silent) -> PictureSource:
    """Read what the request's task trains on: whole small pictures for an autoencoder, large ones for others.

    An autoencoder never sees a source's test pictures; of the others a share of 0.05 is held out. Raises DataError,
    StorageError.
    """
    memory = request.memory_gib << 30

    def reading(read: int, of: int) -> None:
        tell(Read(read, of))

    if request.task != "autoencoder":
        return read_training_set(
            request.source, memory_limit=memory, files=plan.files, decoder=DECODER, progress=reading
        )
    pictures = read_picture_set(
        request.source,
        tuple(plan.sizes["shape"]),
        train=True,
        limit=request.limit,
        # a copy is made while they are split
        memory_limit=memory // 2,
        files=plan.files,
        progress=reading,
    )
    least = least_pictures(plan)
    trained, held_out = split_by_name(pictures, HELD_OUT_SHARE, least)
    if len(trained) < least:
        unless = ", or leave contrast, which compares pictures, out of --loss" if least > 1 else ""
        raise DataError(
            f"too few pictures below {', '.join(request.source)}: {len(pictures)} that are no test pictures, "
            f"{len(held_out)} of them held out, {len(trained)} left to train on, where it takes {least} of each; "
            f"give more{unless}"
        )
    return SmallTrainingSet(trained, held_out, request.augment, pictures.left_out)


def least_pictures(plan: TrainingPlan) -> int:
    """Return how many pictures must be in a batch, be left to train on, and be held out."""
    return 2 if plan.task == "autoencoder" and objective_of(plan.loss, plan.corrupt).weights.get(CONTRAST) else 1


def _reporter(tell: Tell, log: Callable[[Report], None] | None) -> Callable[[Report], None]:
    """Make what takes the reports of a training: they are told, and written to a log where there is one."""

    def report(line: Report) -> None:
        tell(Stepped(**vars(line)))
        if log:
            log(line)

    return report


@contextmanager
def interruptible(ranks: Ranks) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C only set what the yielded function tells; a second one interrupts at once.

    Not so under torchrun, which sends on what the terminal has sent already. Threads other than the main one cannot
    listen to signals and are left as they are.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def press(number: int, frame: Any) -> None:
        if pressed.is_set() and ranks.count == 1:
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _command(request: TrainRequest, plan: TrainingPlan, ranks: Ranks) -> str:
    """Write out the command that trains the same again, with every default that mattered."""
    options = {
        name: getattr(plan, name)
        for name in (
            "loss",
            "corrupt",
            "start",
            "steps",
            "minutes",
            "batch",
            "learning_rate",
            "optimiser",
            "weight_decay",
            "validate_every",
            "patience",
            "seed",
        )
    }
    options |= {"cooldown": plan.cool_minutes, "cooldown_steps": plan.cool_steps}
    options |= {"crop": plan.crop or None, "limit": request.limit}
    options |= {"device": plan.device.partition(":")[0], "precision": plan.precision}
    options |= {"licence": request.licence, "memory_gib": request.memory_gib}
    words = ["torchrun", "--standalone", "--nproc-per-node", str(ranks.count), "--no-python"] if ranks.count > 1 else []
    words += ["darkroom", "train", request.task, *request.source, request.model]
    words += ["--sizes", json.dumps(plan.sizes)] if plan.sizes else []
    words += [word for name in request.augment for word in ("--augment", name)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    return shlex.join(words)


def _stem(request: TrainRequest) -> str:
    return request.model.removesuffix(".safetensors")
