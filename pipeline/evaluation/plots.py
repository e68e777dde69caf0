"""Charts of an evaluation as SVG text, in the manner of `pipeline.reports.plots`.

Colours come from the page, and names are put in escaped. Every curve's name stands beside its end. Curve n is the SVG
group `<chart>-curve-n`, so that a page can pick it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipeline.reports.plots import GROUND, INK, LINE, MUTED, STYLE, logarithmic_axis, svg_text

_DASHES: tuple[tuple[int, ...], ...] = ((5, 2), (2, 1), (7, 2, 1, 2), (4, 1, 1, 1, 1, 1), (9, 3), (1, 1))
_BEYOND = 1.25
_LINE_HEIGHT = 13.5  # points, of one label


@dataclass(frozen=True)
class Curve:
    """A codec in a chart: `x` and `y` float64 arrays of equal length. `number` names its group in the SVG."""

    number: int
    label: str
    colour: str
    x: np.ndarray
    y: np.ndarray
    published: bool = False


def rate_distortion(curves: Sequence[Curve], name: str, label: str) -> str | None:
    """Draw rate (x, bpp, logarithmic) against quality (y, dB): measured curves solid, published ones dashed and grey.

    `name` begins the ids inside the SVG ([a-z-]+), `label` is the axis label with its unit. None without any points.
    """
    drawn = [curve for curve in _clipped(curves) if len(curve.x)]
    if not drawn:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13.2, 6.6))
        axes = figure.add_axes((0.052, 0.085, 0.758, 0.895))
        for order, curve in enumerate(drawn):
            _draw(axes, curve, order)
        rates = np.concatenate([curve.x for curve in drawn])
        logarithmic_axis(axes, rates.min() / 1.08, rates.max() * 1.08)
        axes.margins(y=0.03)
        axes.set_xlabel("Rate (bits per pixel, logarithmic)")
        axes.set_ylabel(label)
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        _label_ends(axes, drawn)
        texts = {f"label-{curve.number}": curve.label for curve in drawn}
        title = f"Curves of bits per pixel against {label}: " + ", ".join(texts.values())
        return svg_text(figure, name, title, texts)


def time_and_rate(dots: Sequence[Curve], name: str, label: str, anchor: str) -> str | None:
    """Draw milliseconds a picture (x, logarithmic) against the BD-rate in percent (y), one dot a codec.

    The best codecs are at the bottom. Every curve holds one point. None without any.
    """
    drawn = [dot for dot in dots if len(dot.x) and dot.x[0] > 0]
    if not drawn:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.6), layout="constrained")
        axes = figure.add_subplot()
        times = np.array([dot.x[0] for dot in drawn])
        logarithmic_axis(axes, times.min() / 1.6, times.max() * 4.5)
        axes.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for dot in drawn:
            axes.scatter(dot.x, dot.y, s=95, color=dot.colour, edgecolors=GROUND, linewidths=1.5, zorder=3)
        axes.margins(y=0.12)
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.set_xlabel(label)
        axes.set_ylabel(f"BD-rate against {anchor} (lower is better)" if len(anchor) <= 24 else "BD-rate")
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        figure.draw_without_rendering()
        # names lie above the line at 0, not on it
        on_line = np.array([abs(dot.y[0]) < 0.05 for dot in drawn])
        wanted = _pixels(axes, drawn) + on_line * _LINE_HEIGHT / 2 * figure.dpi / 72
        heights = _spread(wanted, _LINE_HEIGHT * 0.9 * figure.dpi / 72)
        for dot, height in zip(drawn, heights, strict=True):
            across = axes.transData.transform((dot.x[0], dot.y[0]))[0] + 9 * figure.dpi / 72
            left, middle = axes.transData.inverted().transform((across, height))
            axes.text(left, middle, f"label-{dot.number}", color=INK, fontsize=9.5, va="center")
        texts = {f"label-{dot.number}": dot.label for dot in drawn}
        title = f"{label} against BD-rate: " + ", ".join(f"{dot.label} {dot.y[0]:.1f} %" for dot in drawn)
        return svg_text(figure, name, title, texts)


def _clipped(curves: Sequence[Curve]) -> list[Curve]:
    """Cut off what lies far from all rates measured here, which would only shrink the rest, from published curves."""
    measured = [curve.x for curve in curves if not curve.published and len(curve.x)]
    if not measured:
        return list(curves)
    low, high = np.concatenate(measured).min() / _BEYOND, np.concatenate(measured).max() * _BEYOND
    near = [(curve.x >= low) & (curve.x <= high) | (not curve.published) for curve in curves]
    return [replace(curve, x=curve.x[kept], y=curve.y[kept]) for curve, kept in zip(curves, near, strict=True)]


def _draw(axes: Axes, curve: Curve, order: int) -> None:
    gid = f"curve-{curve.number}"
    if curve.published:
        dashes = (0, _DASHES[order % len(_DASHES)])
        axes.plot(curve.x, curve.y, color=MUTED, linewidth=1.1, linestyle=dashes, zorder=2, gid=gid)
        return
    marks = {"markersize": 5.5, "markeredgecolor": GROUND, "markeredgewidth": 0.8}
    axes.plot(curve.x, curve.y, color=curve.colour, linewidth=2, marker="o", zorder=3, gid=gid, **marks)  # type: ignore[arg-type]


def _label_ends(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write names in a column right of the axes, in the order of the curves' ends, each led to its end by a line."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    ends = [replace(curve, x=curve.x[-1:], y=curve.y[-1:]) for curve in curves]
    heights = _spread(_pixels(axes, ends), _LINE_HEIGHT * figure.dpi / 72)
    right = axes.get_window_extent().x1
    for end, height in zip(ends, heights, strict=True):
        colour = MUTED if end.published else end.colour
        start = axes.transData.transform((end.x[0], end.y[0]))
        bend = (right + 4 * figure.dpi / 72, height)
        place = [axes.transAxes.inverted().transform(point) for point in (start, bend)]
        across, up = zip(*place, strict=True)
        gid = f"leader-{end.number}"
        axes.plot(
            across,
            up,
            transform=axes.transAxes,
            color=colour,
            linewidth=0.7,
            alpha=0.55,
            clip_on=False,
            zorder=1,
            gid=gid,
        )
        weight = "normal" if end.published else "bold"
        axes.annotate(
            f"label-{end.number}",
            (across[1], up[1]),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=colour,
            fontweight=weight,
            annotation_clip=False,
            gid=f"name-{end.number}",
        )


def _pixels(axes: Axes, curves: Sequence[Curve]) -> np.ndarray:
    """Return heights on the canvas of the curves' first points."""
    return np.array([axes.transData.transform((curve.x[0], curve.y[0]))[1] for curve in curves])


def _spread(heights: np.ndarray, distance: float) -> np.ndarray:
    """Move heights apart, as little as can be, until neighbours are `distance` from each other; order is kept."""
    order = np.argsort(heights, kind="stable")
    wanted = heights[order] - distance * np.arange(len(heights))
    # the nearest rising sequence: neighbours that clash move together (pool adjacent violators)
    blocks: list[list[float]] = []
    for value in wanted:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    placed = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    result = np.empty_like(placed)
    result[order] = placed + distance * np.arange(len(heights))
    return result


def _percent(value: float, _position: int = 0) -> str:
    return f"{value:+.0f} %" if value else "0 %"
