"""The one training loop: crops in memory, a constant rate with a cooldown, a moving average, checkpoints to any URL."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.device import choose_device
from models.errors import CheckpointError, TrainingError
from models.files import PLAIN, Files
from models.training.checkpoint import (
    Chapter,
    Progress,
    begin_chapter,
    cooldown_url,
    earlier_chapters,
    load_progress,
    load_start,
    restore,
    save_checkpoint,
)
from models.training.data import PictureSource
from models.training.distributed import ALONE, Ranks, agree, data_parallel, own_device
from models.training.optimisers import build_optimiser, matrices
from models.training.precision import autocast, choose_precision, gradient_scaler, memory_format
from models.training.schedule import Budget, Cooldown, advice, average_decay, cooldown_of, rate_factor, warm_up_factor
from models.training.tasks import Task, suited_rate, task_of

#: steps over which learning rates of new parameters rise to their peak
WARM_UP = 200


@dataclass(frozen=True)
class TrainingPlan:
    """What to train and for how long: until `steps` or `minutes` (whichever ends first) or `patience` is used up.

    The learning rate is constant, and falls to zero over the last share `cooldown` of that budget; with `cool_steps` or
    `cool_minutes` the checkpoint is cooled down over so many at once, and nothing else is trained. `start` is the URL
    of weights to begin from, `batch` crops a step and process, `crop` pixels a side (a multiple of the task's),
    `precision` one of `models.training.precision.PRECISIONS`, `optimiser` one of
    `models.training.optimisers.OPTIMISERS`; None is the task's own. `patience` counts validations without a better
    score. `sizes` are keyword arguments of the task's network, `loss` and `corrupt` what an autoencoder's task takes
    (see `models.training.tasks.task_of`), `augment` how its pictures are varied
    (`models.training.small_batches.AUGMENTATIONS`).

    `source`, `licence` and `command` say where pictures are from, under which licence, and what trains the same again:
    they go into the checkpoint's chapters. A checkpoint of other pictures or options is refused unless `new_chapter`.
    """

    task: str
    checkpoint: str
    start: str | None = None
    steps: int | None = 20_000
    minutes: float | None = None
    cooldown: float = 0.15
    cool_steps: int | None = None
    cool_minutes: float | None = None
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
    sizes: dict[str, Any] = field(default_factory=dict)
    loss: str | None = None
    corrupt: str | None = None
    augment: tuple[str, ...] = ()
    source: str = "pictures"
    licence: str = "unstated"
    command: str = ""
    new_chapter: bool = False
    files: Files = PLAIN


@dataclass(frozen=True)
class Report:
    """One step's line of progress: where training is, what it measured, and what a validation after it measured.

    `fraction` of the budget used in 0..1, `seconds` of all sessions, `pictures` seen so far by all processes,
    `learning_rate` of parameters with factor 1, `score` (lower is better) and `validation` where there was one, `word`
    where it shows that nothing is learned.
    """

    step: int
    fraction: float
    seconds: float
    pictures: int
    learning_rate: float
    figures: dict[str, float]
    validation: dict[str, float] | None = None
    score: float | None = None
    word: str | None = None


def train(
    plan: TrainingPlan,
    pictures: PictureSource,
    report: Callable[[Report], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> tuple[nn.Module, Progress]:
    """Train (or go on training) the plan's network; return its best moving average and how far training has come.

    The average is in eval mode on the CPU. A checkpoint is written at every validation and at the end, also when
    `stopped` says so; a later call with the same plan resumes from it. The cooldown has a checkpoint of its own
    (`cooldown_url`), so that a longer plan goes on from before it. Crops and noise are drawn from (seed, step, rank),
    so that a resumed run sees what an uninterrupted one would have. Of several processes (see
    `models.training.distributed`) only the first validates, reports, writes and decides when to stop; the others return
    their moving average. Raises TrainingError when gradients stop being numbers, CheckpointError when checkpoint or
    start do not fit, or were made of other pictures or options and no new chapter is asked for.
    """
    task = task_of(plan.task, plan.loss, plan.corrupt)
    device = own_device(choose_device(plan.device), ranks)
    precision = choose_precision(plan.precision, device)
    form = torch.channels_last if task.channels_last else memory_format(precision, device)
    torch.manual_seed(plan.seed)
    network = task.build(**plan.sizes)
    progress, optimiser, average, best = _begin(plan, task, network, device, form, pictures, ranks)
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
        url = cooldown_url(plan.checkpoint) if progress.cooldown else plan.checkpoint
        save_checkpoint(url, networks, optimiser, progress, plan.files)

    rate = peak
    while True:
        progress.seconds = before + time.monotonic() - started
        # all processes must take the same steps at the same rates, so one of them decides
        cooldown = progress.cooldown or _next_cooldown(plan, progress)
        begins, leave = agree([float(cooldown is not None), float(stopped())], ranks)
        if leave:
            break
        if begins and not progress.cooldown:
            if ranks.first:
                save()
            progress.cooldown = cooldown or Cooldown(progress.step, progress.seconds, 0, None, "")
            progress.averaged_from = progress.step
        factor, over = agree([_rate_factor(progress), float(_is_over(progress))], ranks)
        if over:
            break
        rate = peak * factor
        since = progress.step - progress.optimised_from
        for group in optimiser.param_groups:
            group["lr"] = group["factor"] * rate * warm_up_factor(since, group["warm_up"])
        picture = _batch(pictures, batch, crop, plan.seed, progress.step, ranks).to(device, memory_format=form)
        task.begin_step(network, progress.step, bool(progress.started))
        with autocast(precision, device):
            loss, figures = task.loss(trained, picture)
        norm = _descend(network, loss, optimiser, scaler)
        _follow(average, network, _average_decay(progress))
        progress.step += 1
        progress.pictures += batch * ranks.count
        progress.seconds = before + time.monotonic() - started
        if ranks.first:
            shown = _numbers({"loss": loss.detach(), **figures, "gradient norm": norm})
            progress.loss_sum += shown["loss"]
            progress.loss_count += 1
            validated, score, word = None, None, None
            if progress.step % plan.validate_every == 0:
                validated = validate(rate)
                score, word = progress.history[-1]["score"], advice(progress.history, bool(progress.started))
                save()
            used = _used(plan, progress)
            line = (progress.step, used, progress.seconds, progress.pictures, rate, shown, validated, score, word)
            report(Report(*line))

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
    plan: TrainingPlan,
    task: Task,
    network: nn.Module,
    device: str,
    form: torch.memory_format,
    pictures: PictureSource,
    ranks: Ranks,
) -> tuple[Progress, torch.optim.Optimizer, nn.Module, nn.Module]:
    """Return progress, optimiser, moving average and best average: from the checkpoint, if any, else from the start."""
    url, found = _found(plan)
    progress = found[0] if found else Progress(plan.task)
    name = plan.optimiser or task.optimiser
    chapter = _chapter(plan, task, name, pictures, ranks)
    if not found:
        if plan.start:
            progress.started = load_start(plan.start, network, plan.files)
        progress.chapters = earlier_chapters(plan.start, plan.files) if plan.start else []
    continued = begin_chapter(progress, chapter, plan.new_chapter, url)
    network.to(device, memory_format=form)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False).eval()
    best = copy.deepcopy(average)
    groups = _parameter_groups(network, progress.started, task.started_warm_up)
    optimiser = build_optimiser(name, groups, plan.weight_decay)
    if found:
        networks = {"network": network, "average": average, "best": best}
        # another chapter's optimiser may be another, and begins anew
        restore(url, found[1], networks, optimiser if continued else None, name)
    return progress, optimiser, average, best


def _found(plan: TrainingPlan) -> tuple[str, tuple[Progress, dict[str, Tensor]] | None]:
    """Find the checkpoint to go on from and where it is: that of the cooldown where the plan has come to it."""
    found = load_progress(plan.checkpoint, plan.task, plan.files)
    if found is None:
        if plan.cool_steps or plan.cool_minutes:
            raise CheckpointError(f"there is no checkpoint at {plan.checkpoint} to cool down; train first")
        return plan.checkpoint, None
    wanted = _next_cooldown(plan, found[0])
    if wanted:
        url = cooldown_url(plan.checkpoint)
        cooled = load_progress(url, plan.task, plan.files)
        if cooled and cooled[0].cooldown == wanted:
            return url, cooled
    return plan.checkpoint, found


def _next_cooldown(plan: TrainingPlan, progress: Progress) -> Cooldown | None:
    """Return the cooldown to begin where the constant part has come to; None while it goes on."""
    if plan.cool_steps or plan.cool_minutes:
        return Cooldown(progress.step, progress.seconds, plan.cool_steps, plan.cool_minutes, "asked")
    return cooldown_of(_budget(plan), progress.step, progress.seconds, progress.stale > plan.patience)


def _chapter(plan: TrainingPlan, task: Task, optimiser: str, pictures: PictureSource, ranks: Ranks) -> Chapter:
    """Describe what the plan trains with, as a checkpoint remembers it."""
    options = {
        "optimiser": optimiser,
        "learning rate": plan.learning_rate or suited_rate(task, optimiser),
        "batch": plan.batch or task.batch,
        "crop": plan.crop or task.crop,
        "weight decay": plan.weight_decay,
        "seed": plan.seed,
        "processes": ranks.count,
    }
    options |= {"loss": plan.loss, "corruption": plan.corrupt} if plan.loss or plan.corrupt else {}
    options |= {"augmentation": list(plan.augment)} if plan.augment else {}
    return Chapter(
        f"{len(pictures.train):,} pictures of {plan.source}",
        pictures.mark,
        plan.licence,
        options,
        plan.command,
    )


def _budget(plan: TrainingPlan) -> Budget:
    return Budget(plan.steps, plan.minutes, plan.cooldown)


def _rate_factor(progress: Progress) -> float:
    return rate_factor(progress.cooldown, progress.step, progress.seconds)


def _average_decay(progress: Progress) -> float:
    return average_decay(progress.step - progress.averaged_from, bool(progress.started) and not progress.cooldown)


def _is_over(progress: Progress) -> bool:
    return progress.cooldown is not None and progress.cooldown.used(progress.step, progress.seconds) >= 1


def _used(plan: TrainingPlan, progress: Progress) -> float:
    """Return the share of everything the plan asks for that is done, 0..1."""
    if progress.cooldown and progress.cooldown.reason in ("asked", "patience"):
        return progress.cooldown.used(progress.step, progress.seconds)
    return min(1.0, _budget(plan).used(progress.step, progress.seconds))


def _parameter_groups(network: nn.Module, started: list[str], started_warm_up: int) -> list[dict[str, Any]]:
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
    """Draw pictures, N x C x H x W float32 in 0..1; the noise that follows is drawn from the same place."""
    torch.manual_seed((ranks.rank << 48) + (seed << 32) + step)
    return pictures.draw(count, crop, np.random.default_rng([seed, step, ranks.rank])).float().div(255)


def _descend(
    network: nn.Module, loss: Tensor, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> Tensor:
    """Take one step down the gradient, clipped to norm 1; return the norm before."""
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


def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the moving average towards the network's parameters; buffers are averages themselves."""
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
    """Bring scalars from the device all at once."""
    return dict(zip(figures, torch.stack([f.float() for f in figures.values()]).tolist(), strict=True))
