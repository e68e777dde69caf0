"""The one training loop: crops in memory, AdamW on a cosine, a moving average, early stop, checkpoints to any URL."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoint import Progress, load_checkpoint, save_checkpoint
from models.data import TrainingSet, centre_crops, random_crops
from models.files import StorageArguments
from models.tasks import TASKS, Task


@dataclass(frozen=True)
class TrainingPlan:
    """What to train and for how long: until `steps` or `minutes` (whichever ends first) or `patience` is used up.

    The learning rate falls on a cosine over that budget. `patience` counts validations without a better score.
    `sizes` are keyword arguments of the task's network.
    """

    task: str
    checkpoint: str
    steps: int = 20_000
    minutes: float | None = None
    batch: int | None = None
    crop: int | None = None
    learning_rate: float | None = None
    validate_every: int = 500
    patience: int = 20
    seed: int = 0
    device: str = "auto"
    sizes: dict = field(default_factory=dict)
    storage: StorageArguments = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """One line of progress: where training is and what it last measured."""

    step: int
    fraction: float
    seconds: float
    figures: dict[str, float]
    validated: bool


class TrainingError(Exception):
    """Training cannot go on; the message says why and what to do."""


def train(
    plan: TrainingPlan,
    pictures: TrainingSet,
    report: Callable[[Report], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[nn.Module, Progress]:
    """Train (or go on training) the plan's network; returns its moving average, in eval mode on the CPU, and progress.

    A checkpoint is written at every validation and at the end; a later call with the same plan resumes from it.
    Crops and noise are drawn from (seed, step), so that a resumed run sees what an uninterrupted one would have.
    Raises TrainingError when the loss stops being a number, CheckpointError when the checkpoint does not fit.
    """
    task = TASKS[plan.task]
    device = choose_device(plan.device)
    torch.manual_seed(plan.seed)
    network = task.build(**plan.sizes).to(device)
    average = copy.deepcopy(network).requires_grad_(False)
    best = copy.deepcopy(average)
    optimiser = torch.optim.AdamW(_parameter_groups(network), weight_decay=1e-4)
    progress = load_checkpoint(plan.checkpoint, network, average, optimiser, plan.task, plan.storage)
    progress = progress or Progress(plan.task)
    best.load_state_dict(average.state_dict())
    on_gpu = device.startswith("cuda")
    if on_gpu:
        network = network.to(memory_format=torch.channels_last)

    crop, batch = plan.crop or task.crop, plan.batch or task.batch
    peak = plan.learning_rate or task.learning_rate
    validation = centre_crops(pictures.held_out[:64], crop).float().div(255)
    scaler = torch.amp.GradScaler("cuda", enabled=on_gpu)
    before, started = progress.seconds, time.monotonic()

    while not stopped():
        progress.seconds = before + time.monotonic() - started
        fraction = _fraction(plan, progress)
        if fraction >= 1 or progress.stale > plan.patience:
            break
        for group in optimiser.param_groups:
            group["lr"] = group["factor"] * _learning_rate(peak, progress.step, fraction)
        picture = _batch(pictures, batch, crop, plan.seed, progress.step, device)
        figures = _step(task, network, picture, optimiser, scaler, device)
        _follow(average, network, progress.step)
        progress.step += 1
        progress.pictures += batch
        validated = progress.step % plan.validate_every == 0
        if validated:
            figures = _validate(task, average, validation, device, progress)
            if progress.stale == 0:
                best.load_state_dict(average.state_dict())
            save_checkpoint(plan.checkpoint, network, average, optimiser, progress, plan.storage)
        report(Report(progress.step, fraction, progress.seconds, figures, validated))

    if progress.step != progress.history[-1]["step"] if progress.history else progress.step:
        _validate(task, average, validation, device, progress)
        if progress.stale == 0:
            best.load_state_dict(average.state_dict())
        save_checkpoint(plan.checkpoint, network, average, optimiser, progress, plan.storage)
    return best.cpu().eval(), progress


def choose_device(device: str) -> str:
    """ "auto" becomes "cuda" where there is one, else "cpu"; anything else is taken as it is."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _step(
    task: Task,
    network: nn.Module,
    picture: Tensor,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    device: str,
) -> dict[str, float]:
    network.train()
    with torch.autocast(torch.device(device).type, dtype=torch.float16, enabled=device.startswith("cuda")):
        loss, figures = task.loss(network, picture)
    # on a GPU the scaler passes over steps that overflow half precision
    if not math.isfinite(loss.item()) and not device.startswith("cuda"):
        raise TrainingError("the loss is no longer a number; lower the learning rate and resume from the checkpoint")
    optimiser.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.unscale_(optimiser)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    scaler.step(optimiser)
    scaler.update()
    return figures | {"loss": loss.item()}


def _validate(task: Task, average: nn.Module, validation: Tensor, device: str, progress: Progress) -> dict[str, float]:
    average.eval()
    with torch.no_grad():
        parts = [task.score(average, part.to(device)) for part in validation.split(8)]
    score = float(np.mean([score for score, _ in parts]))
    figures = {name: float(np.mean([f[name] for _, f in parts])) for name in parts[0][1]}
    if progress.best_score is None or score < progress.best_score:
        progress.best_score, progress.best_step, progress.stale = score, progress.step, 0
    else:
        progress.stale += 1
    progress.history.append({"step": progress.step, "score": score} | figures)
    return figures


def _batch(pictures: TrainingSet, count: int, crop: int, seed: int, step: int, device: str) -> Tensor:
    torch.manual_seed((seed << 32) + step)
    crops = random_crops(pictures.train, count, crop, np.random.default_rng([seed, step]))
    return crops.to(device, non_blocking=True).float().div(255)


def _follow(average: nn.Module, network: nn.Module, step: int) -> None:
    """Exponential moving average, short at first so that the start is forgotten."""
    decay = min(0.999, (1 + step) / (10 + step))
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)


def _parameter_groups(network: nn.Module) -> list[dict]:
    """One group for each factor a network asks for by the names of its parameters (`learning_rates`), default 1."""
    factors = getattr(network, "learning_rates", {})
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        factor = next((f for prefix, f in factors.items() if name.startswith(prefix)), 1.0)
        groups.setdefault(factor, []).append(parameter)
    return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]


def _fraction(plan: TrainingPlan, progress: Progress) -> float:
    by_time = progress.seconds / 60 / plan.minutes if plan.minutes else 0.0
    return max(progress.step / plan.steps, by_time)


def _learning_rate(peak: float, step: int, fraction: float) -> float:
    warm_up = min(1.0, (step + 1) / 200)
    return peak * warm_up * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction))))
