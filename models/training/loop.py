"""The one training loop: crops in memory, a cosine, a moving average, early stop, checkpoints to any URL."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from models.device import choose_device
from models.errors import TrainingError
from models.files import PLAIN, Files
from models.training.checkpoint import Progress, load_progress, load_start, restore, save_checkpoint
from models.training.data import PictureSource
from models.training.distributed import ALONE, Ranks, agree, data_parallel, own_device
from models.training.optimisers import build_optimiser, matrices
from models.training.precision import autocast, choose_precision, gradient_scaler, memory_format
from models.training.tasks import Task, suited_rate, task_of

#: steps over which learning rates of new parameters rise to their peak
WARM_UP = 200


@dataclass(frozen=True)
class TrainingPlan:
    """What to train and for how long: until `steps` or `minutes` (whichever ends first) or `patience` is used up.

    The learning rate falls on a cosine over that budget. `start` is the URL of weights to begin from, `batch` crops a
    step and process, `crop` pixels a side (a multiple of the task's), `precision` one of
    `models.training.precision.PRECISIONS`, `optimiser` one of `models.training.optimisers.OPTIMISERS`; None is the
    task's own. `patience` counts validations without a better score. `sizes` are keyword arguments of the network,
    `loss` and `corrupt` what an autoencoder's task takes (see `models.training.tasks.task_of`), `augment` how its
    pictures are varied (`models.training.small_batches.AUGMENTATIONS`).
    """

    task: str
    checkpoint: str
    start: str | None = None
    steps: int | None = 20_000
    minutes: float | None = None
    batch: int | None = None
    crop: int | None = None
    learning_rate: float | None = None
    optimiser: str | None = None
    weight_decay: float = 1e-4
    validate_every: int = 500
    patience: int = 20
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    sizes: dict = field(default_factory=dict)
    loss: str | None = None
    corrupt: str | None = None
    augment: tuple[str, ...] = ()
    files: Files = PLAIN


@dataclass(frozen=True)
class Report:
    """One step's line of progress: where training is, what it measured, and what a validation after it measured.

    `fraction` of the budget used in 0..1, `seconds` of all sessions, `pictures` seen so far by all processes,
    `learning_rate` of parameters with factor 1, `score` (lower is better) and `validation` where there was one.
    """

    step: int
    fraction: float
    seconds: float
    pictures: int
    learning_rate: float
    figures: dict[str, float]
    validation: dict[str, float] | None = None
    score: float | None = None


def train(
    plan: TrainingPlan,
    pictures: PictureSource,
    report: Callable[[Report], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> tuple[nn.Module, Progress]:
    """Train (or go on training) the plan's network; returns its best moving average, in eval mode on the CPU.

    A checkpoint is written at every validation and at the end, also when `stopped` says so; a later call with the same
    plan resumes from it. Crops and noise are drawn from (seed, step, rank), so that a resumed run sees what an
    uninterrupted one would have. Of several processes (see `models.training.distributed`) only the first validates,
    reports, writes and decides when to stop; the others return their moving average. Raises TrainingError when
    gradients stop being numbers, CheckpointError when checkpoint or start do not fit.
    """
    task = task_of(plan.task, plan.loss, plan.corrupt)
    device = own_device(choose_device(plan.device), ranks)
    precision = choose_precision(plan.precision, device)
    form = torch.channels_last if task.channels_last else memory_format(precision, device)
    torch.manual_seed(plan.seed)
    network = task.build(**plan.sizes)
    progress, optimiser, average, best = _begin(plan, task, network, device, form)
    scaler = gradient_scaler(precision, device)
    if progress.scaler:
        scaler.load_state_dict(progress.scaler)
    if agree([progress.step], ranks) != [progress.step]:
        raise TrainingError(f"not every process can read the checkpoint {plan.checkpoint}; give a URL that all can")
    trained = data_parallel(network, device, ranks)

    crop, batch = plan.crop or task.crop, plan.batch or task.batch
    peak = plan.learning_rate or suited_rate(task, plan.optimiser)
    held_out = pictures.held_out_batches(task.held_out_crop)
    trained_on = pictures.training_batches(task.held_out_crop)
    before, started = progress.seconds, time.monotonic()

    def validate(rate: float) -> dict[str, float]:
        score, figures = _score(task, average, held_out, device)
        extra = {"training score": _score(task, average, trained_on, device)[0]} if trained_on else {}
        _remember(progress, score, extra | {"learning rate": rate} | figures)
        if progress.stale == 0:
            best.load_state_dict(average.state_dict())
        return figures

    def save() -> None:
        progress.scaler = scaler.state_dict()
        networks = {"network": network, "average": average, "best": best}
        save_checkpoint(plan.checkpoint, networks, optimiser, progress, plan.files)

    rate = peak
    while True:
        progress.seconds = before + time.monotonic() - started
        leave = progress.stale > plan.patience or stopped()
        # all processes must take the same steps at the same rates, so one of them decides
        fraction, ended = agree([_fraction(plan, progress), float(leave)], ranks)
        if fraction >= 1 or ended:
            break
        rate = peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction)))
        for group in optimiser.param_groups:
            group["lr"] = group["factor"] * rate * min(1.0, (progress.step + 1) / group["warm_up"])
        picture = _batch(pictures, batch, crop, plan.seed, progress.step, ranks).to(device, memory_format=form)
        task.begin_step(network, progress.step)
        with autocast(precision, device):
            loss, figures = task.loss(trained, picture)
        norm = _descend(network, loss, optimiser, scaler)
        _follow(average, network, progress.step)
        progress.step += 1
        progress.pictures += batch * ranks.count
        progress.seconds = before + time.monotonic() - started
        if ranks.first:
            shown = _numbers({"loss": loss.detach(), **figures, "gradient norm": norm})
            progress.loss_sum += shown["loss"]
            progress.loss_count += 1
            validated, score = None, None
            if progress.step % plan.validate_every == 0:
                validated = validate(rate)
                score = progress.history[-1]["score"]
                save()
            used = min(1.0, _fraction(plan, progress))
            report(Report(progress.step, used, progress.seconds, progress.pictures, rate, shown, validated, score))

    validated_at = progress.history[-1]["step"] if progress.history else 0
    if ranks.first:
        # a validation that an undisturbed run would not have made would change what is best
        if progress.step != validated_at and not stopped():
            validate(rate)
        save()
    # no process leaves before the checkpoint is there
    agree([1.0], ranks)
    return (best if ranks.first else average).cpu().eval(), progress


def _begin(
    plan: TrainingPlan, task: Task, network: nn.Module, device: str, form: torch.memory_format
) -> tuple[Progress, torch.optim.Optimizer, nn.Module, nn.Module]:
    """Progress, optimiser, moving average and best average: of the checkpoint, if there is one, else from the start."""
    found = load_progress(plan.checkpoint, plan.task, plan.files)
    progress = found[0] if found else Progress(plan.task)
    if plan.start and not found:
        progress.started = load_start(plan.start, network, plan.files)
    network.to(device, memory_format=form)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False).eval()
    best = copy.deepcopy(average)
    name = plan.optimiser or task.optimiser
    groups = _parameter_groups(network, progress.started, task.started_warm_up)
    optimiser = build_optimiser(name, groups, plan.weight_decay)
    if found:
        networks = {"network": network, "average": average, "best": best}
        restore(plan.checkpoint, found[1], networks, optimiser, name)
    return progress, optimiser, average, best


def _parameter_groups(network: nn.Module, started: list[str], started_warm_up: int) -> list[dict]:
    """Group parameters by factor, which a network's `learning_rates` has by name, warm-up, and being a matrix."""
    factors, among_matrices = getattr(network, "learning_rates", {}), matrices(network)
    groups: dict[tuple[float, int, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in network.named_parameters():
        factor = next((f for prefix, f in factors.items() if name.startswith(prefix)), 1.0)
        warm_up = started_warm_up if name in started else WARM_UP
        groups.setdefault((factor, warm_up, name in among_matrices), []).append((name, parameter))
    return [
        {"params": group, "factor": factor, "warm_up": steps, "matrix": matrix}
        for (factor, steps, matrix), group in groups.items()
    ]


def _batch(pictures: PictureSource, count: int, crop: int, seed: int, step: int, ranks: Ranks) -> Tensor:
    """Pictures, N x C x H x W float32 in 0..1; the noise that follows is drawn from the same place."""
    torch.manual_seed((ranks.rank << 48) + (seed << 32) + step)
    return pictures.draw(count, crop, np.random.default_rng([seed, step, ranks.rank])).float().div(255)


def _descend(
    network: nn.Module, loss: Tensor, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> Tensor:
    """One step down the gradient, clipped to norm 1; returns the norm before."""
    optimiser.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.unscale_(optimiser)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    # in float16 a gradient may overflow now and then, but not once the scale has come down;
    # the norm is that of all processes together, so that all of them end here
    if not norm.isfinite() and scaler.get_scale() <= 1:
        raise TrainingError("gradients are no longer numbers; lower the learning rate and resume from the checkpoint")
    scaler.step(optimiser)
    scaler.update()
    return norm


def _follow(average: nn.Module, network: nn.Module, step: int) -> None:
    """Exponential moving average, short at first so that the start is forgotten; buffers are averages themselves."""
    decay = min(0.999, (1 + step) / (10 + step))
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)
        for kept, new in zip(average.buffers(), network.buffers(), strict=True):
            kept.copy_(new)


def _score(task: Task, average: nn.Module, batches: list[Tensor], device: str) -> tuple[float, dict[str, float]]:
    with torch.no_grad():
        parts = [task.score(average, batch.to(device).float().div(255)) for batch in batches]
    score = torch.cat([scores for scores, _ in parts]).mean().item()
    return score, _numbers({name: torch.cat([f[name] for _, f in parts]).mean() for name in parts[0][1]})


def _remember(progress: Progress, score: float, figures: dict[str, float]) -> None:
    """Put a validation into the history; note whether it is the best, and for how long there was no better one."""
    if progress.best_score is None or score < progress.best_score:
        progress.best_score, progress.best_step, progress.stale = score, progress.step, 0
    else:
        progress.stale += 1
    loss = {"training loss": progress.loss_sum / progress.loss_count} if progress.loss_count else {}
    progress.history.append({"step": progress.step, "score": score} | loss | figures)
    progress.loss_sum, progress.loss_count = 0.0, 0


def _numbers(figures: dict[str, Tensor]) -> dict[str, float]:
    """Scalars brought from the device all at once."""
    return dict(zip(figures, torch.stack([f.float() for f in figures.values()]).tolist(), strict=True))


def _fraction(plan: TrainingPlan, progress: Progress) -> float:
    by_time = progress.seconds / 60 / plan.minutes if plan.minutes else 0.0
    return max(progress.step / plan.steps if plan.steps else 0.0, by_time)
