"""What the benchmarks of autoencoders share: training within a budget, what is measured, tables, grids and JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from models.autoencoders import Autoencoder
from models.autoencoders.objective import Corruption
from models.training.loop import Report, TrainingPlan, train
from models.training.small_batches import SmallTrainingSet
from models.training.small_pictures import SmallPictures, split_by_name
from pipeline.exploration.probes import probe_split
from pipeline.generation.interpolation import encode_all
from pipeline.generation.results import grid

Row = dict[str, Any]
console = Console(width=150)


@dataclass(frozen=True)
class Recipe:
    """How an autoencoder is trained; see `models.training.loop.TrainingPlan`."""

    sizes: dict[str, Any]
    loss: str = "mse"
    corrupt: str | None = None
    augment: tuple[str, ...] = ()
    optimiser: str = "muon"
    learning_rate: float = 0.01
    batch: int = 128


@dataclass(frozen=True)
class Budget:
    """Steps or minutes for one model, and the folder of its checkpoints."""

    folder: Path
    steps: int | None
    minutes: float | None


def budget_options(steps: int) -> Callable[[Callable], Callable]:
    """`--steps`, `--minutes` and `--folder` of a benchmark; `steps` are taken where neither is given."""

    def decorate(command: Callable) -> Callable:
        for option in (
            click.option("--folder", type=click.Path(path_type=Path), required=True, help="checkpoints and grids"),
            click.option("--minutes", type=float, help="for one model"),
            click.option("--steps", type=int, help=f"for one model; default {steps}, or no limit beside --minutes"),
        ):
            command = option(command)
        return command

    return decorate


def budget_of(folder: Path, steps: int | None, minutes: float | None, usual: int) -> Budget:
    folder.mkdir(parents=True, exist_ok=True)
    return Budget(folder, steps or (None if minutes else usual), minutes)


def trained(name: str, recipe: Recipe, pictures: SmallPictures, budget: Budget) -> tuple[Autoencoder, Row]:
    """The network, trained or taken from its checkpoint, with the facts of its training."""
    plan = TrainingPlan(
        task="autoencoder",
        checkpoint=str(budget.folder / f"{name}.checkpoint.safetensors"),
        steps=budget.steps,
        minutes=budget.minutes,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        optimiser=recipe.optimiser,
        validate_every=max(1, min(500, (budget.steps or 500) // 4)),
        device="cpu",
        precision="float32",
        sizes=recipe.sizes,
        loss=recipe.loss,
        corrupt=recipe.corrupt,
        augment=recipe.augment,
    )
    last = time.monotonic()

    def report(line: Report) -> None:
        nonlocal last
        if time.monotonic() - last > 20:
            last = time.monotonic()
            told = ", ".join(f"{figure} {value:.4g}" for figure, value in line.figures.items())
            console.print(f"[dim]{name}: step {line.step:,}, {line.seconds:.0f} s, {told}[/]")

    network, progress = train(plan, SmallTrainingSet(*split_by_name(pictures, 0.05), recipe.augment), report)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return cast(Autoencoder, network), {
        "parameters": parameters,
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
    }


def rebuilt(network: Autoencoder, pictures: torch.Tensor, corruption: Corruption | None = None) -> np.ndarray:
    """What a network makes of N x C x H x W uint8 pictures, spoiled first if asked: float32 in 0..1."""
    generator = torch.Generator().manual_seed(25)
    found = []
    with torch.inference_mode():
        for part in pictures.split(256):
            given = part.float() / 255
            found.append(network(corruption(given, generator) if corruption else given).numpy())
    return np.concatenate(found)


def psnr(errors: np.ndarray) -> float:
    """Mean PSNR in dB of pictures with these mean squared errors, of 0..1."""
    return float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10))))


def squared_errors(pictures: torch.Tensor, others: np.ndarray) -> np.ndarray:
    """Of uint8 pictures and of others in 0..1, N."""
    return np.concatenate(
        [
            ((part.numpy() / 255 - others[start : start + 256]) ** 2).mean((1, 2, 3))
            for start, part in zip(range(0, len(others), 256), pictures.split(256), strict=True)
        ]
    )


def flat(pictures: SmallPictures) -> np.ndarray:
    """N x (C H W) float32 in 0..1."""
    return pictures.pictures.flatten(1).numpy().astype(np.float32) / 255


def principal(train: np.ndarray, test: np.ndarray, axes: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Both on so many principal axes of the first, and the mean squared error of what they keep of the second."""
    from sklearn.decomposition import PCA

    fitted = PCA(axes, random_state=0).fit(train)
    one, other = fitted.transform(train), fitted.transform(test)
    return one, other, float(((fitted.inverse_transform(other).clip(0, 1) - test) ** 2).mean())


def latents_of(network: Autoencoder, pictures: SmallPictures) -> np.ndarray:
    """N x d float32."""
    return encode_all(network, pictures.pictures, "cpu")


def probed(train: np.ndarray, train_labels: torch.Tensor, test: np.ndarray, test_labels: torch.Tensor) -> Row:
    """Accuracy of a linear probe and of nearest neighbours, in percent."""
    found = probe_split(train, train_labels.numpy(), test, test_labels.numpy())
    return {f"{each.probe}, %": 100 * each.accuracy for each in found}


def write_grid(path: Path, pictures: np.ndarray, columns: int, enlarge: int = 2) -> None:
    """N x C x H x W in 0..1 as one PNG."""
    levels = np.rint(pictures.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    whole = grid(levels, columns).repeat(enlarge, 0).repeat(enlarge, 1)
    cv2.imwrite(str(path), cv2.cvtColor(whole, cv2.COLOR_RGB2BGR) if whole.shape[2] == 3 else whole)


def print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of all columns that any row has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in rows:
        table.add_row(*(_shown(row.get(name)) for name in names))
    console.print(table)


def write_results(path: Path | None, results: Mapping[str, Any]) -> None:
    if path:
        path.write_text(json.dumps(results, indent=2) + "\n")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
