"""The report of a training run: one self-contained HTML file beside the weights, made like the report of a run."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from models.autoencoders.interface import Autoencoder
from models.cards import Card
from models.training.checkpoint import Progress
from models.training.data import PictureSource
from models.training.finish import COURSE
from models.training.loop import TrainingPlan
from models.training.tasks import objective_of
from pipeline.reports import plots
from pipeline.reports.page import asset, environment
from pipeline.training.plots import Curve, course

Row = dict[str, Any]
#: pictures that are named of those left out
_NAMED = 20
#: pictures in a row of a sheet, and rows of it
_ACROSS, _DOWN = 12, 2


def render_training(
    card: Card,
    progress: Progress,
    plan: TrainingPlan,
    sheets: Sequence[Row] = (),
    pictures: PictureSource | None = None,
) -> str:
    """Render the report of a training as HTML text, a pure function of its arguments.

    `sheets` are those of `picture_sheets`; of `pictures` it names those that were left out.
    """
    left_out = pictures.left_out if pictures else ()
    history = progress.history
    best = next((entry for entry in history if entry["step"] == progress.best_step), {})
    page = (
        environment()
        .get_template("training.html")
        .render(
            card=card,
            history=history,
            best=best,
            progress=progress,
            ended=_why_it_ended(progress, plan),
            gap=_gap(best),
            guards=_guards(progress, plan, card),
            charts=_charts(history, progress.best_step if history else None),
            sheets=sheets,
            left_out=left_out[:_NAMED],
            more=max(0, len(left_out) - _NAMED),
            columns=[name for name in (history[-1] if history else {}) if name != "step"],
            css=Markup(asset("report.css") + "\n" + asset("evaluation.css") + "\n" + asset("training.css")),
        )
    )
    return page.encode("utf-8", "replace").decode()


def picture_sheets(network: torch.nn.Module, plan: TrainingPlan, held_out: Tensor) -> list[Row]:
    """Make sheets of pictures to look at, of an autoencoder: what it saw, what came back, and samples from its prior.

    `held_out` is N x C x H x W uint8. Each sheet is a title and a PNG as a data URI; there are none of other networks.
    """
    if not isinstance(network, Autoencoder):
        return []
    pictures = held_out[: _ACROSS * _DOWN].float() / 255
    corruption = objective_of(plan.loss, plan.corrupt).corruption
    generator = torch.Generator().manual_seed(25)
    with torch.no_grad():
        seen = corruption(pictures, generator)
        rows = [pictures, seen, network(seen)] if plan.corrupt else [pictures, network(seen)]
        sheets = [{"title": "Held-out pictures, " + ("what was seen, " if plan.corrupt else "") + "what came back"}]
        sheets[0]["image"] = _sheet(
            [part for group in zip(*(_rows(row) for row in rows), strict=True) for part in group]
        )
        if network.generative:
            samples = network.sample(_ACROSS * _DOWN, torch.Generator().manual_seed(plan.seed))
            sheets.append({"title": "Samples from the prior", "image": _sheet(_rows(samples))})
    return sheets


def _rows(pictures: Tensor) -> list[np.ndarray]:
    """Lay pictures, N x C x H x W in 0..1, side by side in rows of H x (columns W) x 3 uint8, the last filled black."""
    levels = (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    levels = np.broadcast_to(levels, (*levels.shape[:3], 3))
    edged = np.pad(levels, ((0, -len(levels) % _ACROSS), (1, 1), (1, 1), (0, 0)))
    return [np.concatenate(list(edged[i : i + _ACROSS]), 1) for i in range(0, len(edged), _ACROSS)]


def _sheet(rows: list[np.ndarray]) -> str:
    encoded = cv2.imencode(".png", cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))[1]
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()


def _why_it_ended(progress: Progress, plan: TrainingPlan) -> str:
    cooldown = progress.cooldown
    if cooldown is None or cooldown.used(progress.step, progress.seconds) < 1:
        return "it was stopped"
    ends = {
        "patience": f"early stopping: {plan.patience} validations brought nothing better",
        "steps": f"all {plan.steps or 0:,} steps were taken",
        "minutes": f"the {plan.minutes or 0:g} minutes were over",
        "asked": "the cooldown that was asked for is over",
    }
    return f"{ends[cooldown.reason]}; the rate fell from step {cooldown.step:,} on"


def _gap(best: Mapping[str, float]) -> float | None:
    """Compute by how much of its training score the kept network is worse on held-out pictures, in percent."""
    trained = best.get("training score")
    return 100 * (best["score"] - trained) / abs(trained) if trained else None


def _guards(progress: Progress, plan: TrainingPlan, card: Card) -> list[tuple[str, str]]:
    """List what was done against overfitting, by name."""
    dropout = card.sizes.get("dropout")
    names = {
        "Early stopping": f"patience of {plan.patience} validations, one every {plan.validate_every:,} steps; "
        f"step {progress.best_step:,} of {progress.step:,} was kept",
        "Moving average": "of the weights; it is what is scored and kept",
        "Weight decay": f"{plan.weight_decay:g} ({plan.optimiser})",
        "Dropout": f"{dropout:g}" if dropout else "none",
        "Corruption": plan.corrupt or "none",
        "Augmentation": ", ".join(plan.augment) or "none",
        "Loss": plan.loss or "the task's own",
    }
    shown = names if card.task == "autoencoder" else {k: v for k, v in names.items() if k.split()[0] in _FOR_ALL}
    return list(shown.items())


_FOR_ALL = ("Early", "Moving", "Weight")


def _charts(history: Sequence[Mapping[str, float]], kept: int | None) -> list[Row]:
    """Draw SVGs with captions and legends: score and loss, then every other figure, the learning rate last."""
    training, held_out, seen = plots.COLOURS[0], plots.COLOURS[1], plots.COLOURS[9]
    lines = [
        _curve(history, "training score", "training pictures", training),
        _curve(history, "score", "held-out pictures", held_out),
    ]
    lines = [line for line in lines if len(line.steps)]
    charts = []
    if len(lines) == 2:
        lines.append(_curve(history, "training loss", "loss while training, with corruption and dropout", seen))
        charts.append(("Score, lower is better", lines, True))
    else:
        charts.append(("Held-out score, lower is better", lines, False))
        charts.append(("Training loss", [_curve(history, "training loss", "", training)], False))
    figures = [name for name in (history[-1] if history else {}) if name not in COURSE]
    charts += [(f"Held-out {name}", [_curve(history, name, "", held_out)], False) for name in figures]
    charts.append(("Learning rate", [_curve(history, "learning rate", "", seen)], False))
    drawn = [
        (title, curves, wide, course(curves, f"course-{number}", title, kept, wide))
        for number, (title, curves, wide) in enumerate(charts)
    ]
    return [
        {
            "title": title,
            "svg": Markup(svg),
            "wide": wide,
            "legend": [{"label": curve.label, "colour": curve.colour} for curve in curves if wide],
        }
        for title, curves, wide, svg in drawn
        if svg
    ]


def _curve(history: Sequence[Mapping[str, float]], name: str, label: str, colour: str) -> Curve:
    entries = [(entry["step"], entry[name]) for entry in history if entry.get(name) is not None]
    steps, values = np.array(entries, np.float64).reshape(-1, 2).T
    return Curve(label, colour, steps, values)
