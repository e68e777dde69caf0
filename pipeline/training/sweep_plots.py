"""Charts of a sweep as SVG text, in the manner of `pipeline.reports.plots`.

Colours come from the page, and names are put in escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.reports.plots import COLOURS, GROUND, LINE, MUTED, STYLE, logarithmic_axis, svg_text

_TRIAL, _BEST, _PRUNED = COLOURS[0], COLOURS[1], COLOURS[9]
_STEEP = 10.0
_MAX_LABEL = 24
#: of the parallel axes, and of the ticks on an axis of choices
_MAX_AXES, _MAX_CHOICES = 10, 12


@dataclass(frozen=True)
class Dimension:
    """An option that trials drew: `values` float64, one a trial, NaN where it was not drawn.

    Of choices the values are places in `choices`, as texts; those are empty for numbers.
    """

    name: str
    values: np.ndarray
    choices: tuple[str, ...] = ()
    log: bool = False


def progress(values: np.ndarray, pruned: np.ndarray, maximise: bool, label: str) -> str | None:
    """Draw trials in their order against their values, float64 (NaN: failed), and the best so far of those not pruned.

    Returns SVG text; None where no value is a number.
    """
    if not np.isfinite(values).any():
        return None
    numbers = np.arange(len(values))
    whole = np.where(pruned, np.nan, values)
    running = np.fmax.accumulate(whole) if maximise else np.fmin.accumulate(whole)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13.2, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.scatter(numbers[pruned], values[pruned], s=34, facecolors="none", edgecolors=_PRUNED, linewidths=1.2)
        axes.scatter(numbers[~pruned], values[~pruned], s=44, color=_TRIAL, edgecolors=GROUND, linewidths=0.8, zorder=3)
        axes.plot(numbers, running, color=_BEST, linewidth=2, drawstyle="steps-post")
        _value_axis(axes, values, label)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("Trial")
        best = np.nanmax(whole) if maximise else np.nanmin(whole)
        return svg_text(figure, "progress", f"{label} of {len(values)} trials, best {best:.4g}", {"label-0": label})


def importances(shares: Mapping[str, float]) -> str | None:
    """Draw a bar for every option, by how much of the spread of the values it explains; None without options."""
    if not shares:
        return None
    names = sorted(shares, key=lambda name: shares[name])
    with mpl.rc_context(STYLE):
        # names are put in later, so that their width is not known here
        margin, height = 0.35 + 0.078 * max(len(_short(name)) for name in names), 0.8 + 0.36 * len(names)
        figure = Figure(figsize=(6.2, height))
        bottom = 0.5 / height
        axes = figure.add_axes((margin / 6.2, bottom, 1 - (margin + 0.25) / 6.2, 1 - bottom - 0.04 / height))
        axes.barh(np.arange(len(names)), [100 * shares[name] for name in names], color=_TRIAL, height=0.62)
        axes.set_yticks(np.arange(len(names)), [f"label-{number}" for number in range(len(names))])
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
        axes.set_xlim(0, None)
        axes.set_xlabel("Share of what decided")
        texts = {f"label-{number}": _short(name) for number, name in enumerate(names)}
        title = "What mattered: " + ", ".join(f"{name} {shares[name]:.0%}" for name in reversed(names))
        return svg_text(figure, "importances", title, texts)


def slice_of(dimension: Dimension, values: np.ndarray, pruned: np.ndarray, number: int, label: str) -> str | None:
    """Draw one option against the value, a mark a trial: SVG text; None where no trial has both."""
    known = np.isfinite(dimension.values) & np.isfinite(values)
    if not known.any():
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.3), layout="constrained")
        axes = figure.add_subplot()
        for chosen, marks in (
            (known & pruned, {"facecolors": "none", "edgecolors": _PRUNED, "linewidths": 1.2}),
            (known & ~pruned, {"color": _TRIAL, "edgecolors": GROUND, "linewidths": 0.8, "zorder": 3}),
        ):
            axes.scatter(dimension.values[chosen], values[chosen], s=40, **marks)  # type: ignore[arg-type]
        texts = {"label-0": label}
        drawn = dimension.values[known]
        if dimension.choices:
            places = np.arange(min(len(dimension.choices), _MAX_CHOICES))
            axes.set_xticks(places, [f"label-{place + 1}" for place in places], rotation=20, ha="right")
            axes.set_xlim(-0.6, len(dimension.choices) - 0.4)
            texts |= {f"label-{place + 1}": _short(dimension.choices[place]) for place in places}
        elif dimension.log:
            logarithmic_axis(axes, drawn.min() / 1.15, drawn.max() * 1.15)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        _value_axis(axes, values[known], label)
        return svg_text(figure, f"slice-{number}", f"{dimension.name} against {label}", texts)


def parallel(dimensions: Sequence[Dimension], values: np.ndarray, maximise: bool, label: str) -> str | None:
    """Draw a line a finished trial over one axis an option, the value last; the best quarter stands out.

    Returns SVG text; None for fewer than two options or trials that have all of them.
    """
    shown = list(dimensions)[:_MAX_AXES]
    finished = np.isfinite(values) & np.all([np.isfinite(one.values) for one in shown], axis=0)
    if finished.sum() < 2 or len(shown) < 2:
        return None
    ranks = np.argsort(np.argsort(-values[finished] if maximise else values[finished]))
    axes_of = [*shown, Dimension(label, values, log=_steep(values[finished]))]
    scaled = np.stack([_scaled(one, finished) for one in axes_of])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13.2, 4.8), layout="constrained")
        axes = figure.add_subplot()
        for trial in np.argsort(-ranks):
            best = ranks[trial] < max(1, len(ranks) // 4)
            style = {"color": _BEST, "linewidth": 2.0} if best else {"color": _PRUNED, "alpha": 0.4, "linewidth": 1.1}
            axes.plot(np.arange(len(axes_of)), scaled[:, trial], **style)  # type: ignore[arg-type]
        texts = {}
        for place, one in enumerate(axes_of):
            axes.axvline(place, color=LINE, linewidth=1)
            for end, (height, text) in enumerate(_ends(one, finished)):
                texts[f"label-{place}{end}"] = _short(text)
                axes.text(
                    place,
                    height,
                    f"label-{place}{end}",
                    color=MUTED,
                    ha="center",
                    va="bottom" if end else "top",
                    fontsize=9.5,
                )
            texts[f"label-{place}9"] = _short(one.name)
        axes.set_xticks(np.arange(len(axes_of)), [f"label-{place}9" for place in range(len(axes_of))])
        axes.set_xlim(-0.35, len(axes_of) - 0.65)
        axes.set_ylim(-0.12, 1.12)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="x", length=0)
        title = "Trials over " + ", ".join(one.name for one in axes_of)
        return svg_text(figure, "parallel", title, texts)


def _scaled(dimension: Dimension, chosen: np.ndarray) -> np.ndarray:
    values = np.log(dimension.values[chosen]) if dimension.log else dimension.values[chosen]
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread else np.full(len(values), 0.5)


def _ends(dimension: Dimension, chosen: np.ndarray) -> list[tuple[float, str]]:
    """Return what stands at the lower and the upper end of a parallel axis."""
    low, high = dimension.values[chosen].min(), dimension.values[chosen].max()
    text = [dimension.choices[int(end)] if dimension.choices else f"{end:.3g}" for end in (low, high)]
    return [(-0.02, text[0]), (1.02, text[1])] if low < high else [(0.48, text[0])]


def _value_axis(axes: Axes, values: np.ndarray, label: str) -> None:
    if _steep(values[np.isfinite(values)]):
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.set_ylabel("label-0")
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)


def _steep(values: np.ndarray) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() > _STEEP)


def _short(text: str) -> str:
    return text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"
