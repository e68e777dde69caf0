"""Charts of a training run as SVG text, in the manner of `pipeline.reports.plots`.

Colours come from the page, and legends stand beside the chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.reports.plots import GROUND, LINE, MUTED, STYLE, svg_text

#: a figure that falls or rises by more than this factor is drawn on a logarithmic axis
_STEEP = 200.0


@dataclass(frozen=True)
class Curve:
    """One figure over the steps: `steps` and `values` float64 arrays of equal length."""

    label: str
    colour: str
    steps: np.ndarray
    values: np.ndarray


def course(curves: Sequence[Curve], name: str, label: str, kept: int | None, wide: bool = False) -> str | None:
    """Draw curves over steps on one axis; the area between the first two is the gap between them, where `wide`.

    A line marks the step whose weights were `kept`. `name` begins the ids inside the SVG ([a-z0-9-]+). Values that are
    no numbers are left out; None when none are left.
    """
    drawn = [_finite(curve) for curve in curves]
    drawn = [curve for curve in drawn if len(curve.steps)]
    if not drawn:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13.2, 4.6) if wide else (6.2, 3.1), layout="constrained")
        axes = figure.add_subplot()
        if wide and len(drawn) > 1:
            _shade(axes, *drawn[:2])
        for curve in drawn:
            mark = {"marker": "o", "markersize": 4, "markeredgecolor": GROUND} if len(curve.steps) < 60 else {}
            axes.plot(curve.steps, curve.values, color=curve.colour, linewidth=1.9, **mark)  # type: ignore[arg-type]
        if kept is not None:
            axes.axvline(kept, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)))
        values = np.concatenate([curve.values for curve in drawn])
        if values.min() > 0 and values.max() / values.min() > _STEEP:
            axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("Step")
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        title = f"{label} over steps: " + ", ".join(f"{c.label} ends at {c.values[-1]:.4g}" for c in drawn)
        return svg_text(figure, name, title, {})


def _finite(curve: Curve) -> Curve:
    kept = np.isfinite(curve.values)
    return Curve(curve.label, curve.colour, curve.steps[kept], curve.values[kept])


def _shade(axes: Axes, one: Curve, other: Curve) -> None:
    steps = np.intersect1d(one.steps, other.steps)
    heights = [np.interp(steps, curve.steps, curve.values) for curve in (one, other)]
    axes.fill_between(steps, *heights, color=other.colour, alpha=0.13, linewidth=0)
