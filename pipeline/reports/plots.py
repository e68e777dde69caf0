"""Charts of a run as SVG text for inlining into the report.

Colours of text, lines and ground are CSS variables (`--ink`, `--muted`, `--line`, `--ground`), so that one SVG serves
light and dark pages; labels use the page's font. Equal input gives equal text. Branch names never pass through
matplotlib (no mathtext, no missing glyphs): they are put in, escaped, when the SVG is written. matplotlib is imported
once there is something to draw.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Told apart on light and dark ground; branch n wears COLOURS[n % len(COLOURS)] wherever it appears.
COLOURS = ("#4269d0", "#e39b0c", "#e8604c", "#3ca951", "#a463f2", "#4fb3a1", "#e86aa0", "#7aa6ec", "#9c6b4e", "#8d929b")

#: PSNR from here on means identical pictures; drawn, they would flatten everything else.
IDENTICAL = 100.0

_THEME = {"#010101": "var(--ink)", "#020202": "var(--muted)", "#030303": "var(--line)", "#040404": "var(--ground)"}
INK, MUTED, LINE, GROUND = _THEME
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "darkroom",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
}
_MAX_POINTS = 2000
_MAX_LABEL = 26


@dataclass(frozen=True)
class Series:
    """One branch in a chart: equally long float64 arrays without NaN (y only for the scatter)."""

    name: str
    colour: str
    x: np.ndarray
    y: np.ndarray | None = None


def svg_text(figure: Figure, name: str, title: str, texts: Mapping[str, str]) -> str:
    """Return the figure as an <svg> element with ids that begin with `name`; `texts` replaces whole labels, escaped."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r'<svg .*?viewBox="([^"]*)"[^>]*>', _opening(title), svg, count=1, flags=re.DOTALL)
    return re.sub(r">(label-\d+)<", lambda found: f">{html.escape(texts[found[1]])}<", svg)


def _opening(title: str) -> str:
    text = html.escape(title).replace("\\", r"\\")
    return (
        rf'<svg class="chart" role="img" aria-label="{text}" viewBox="\1" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )


def _short(name: str) -> str:
    return name if len(name) <= _MAX_LABEL else name[: _MAX_LABEL - 1] + "…"


def _plain(value: float, _position: int = 0) -> str:
    return f"{value:,.10g}"


def logarithmic_axis(axes: Axes, low: float, high: float) -> None:
    """Give `axes` a logarithmic x axis with plain numbers; narrow ranges get finer ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlim(low, high)
    decades = np.log10(high / low)
    subs = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)


def rate_distortion(series: Sequence[Series]) -> str | None:
    """Draw bits per pixel (x, logarithmic) against PSNR in dB (y) as SVG: a mark per picture, the means bigger.

    Identical pictures and rates of 0 are left out, a large run is thinned evenly to about 2,000 marks.
    None when nothing is left to draw.
    """
    drawn = []
    for one in series:
        assert one.y is not None
        keep = (one.y < IDENTICAL) & (one.x > 0)
        if keep.any():
            drawn.append(Series(one.name, one.colour, one.x[keep], one.y[keep]))
    if not drawn:
        return None
    import matplotlib as mpl
    from matplotlib.figure import Figure

    every = -(-sum(len(one.x) for one in drawn) // _MAX_POINTS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13.2, 4.9), layout="constrained")
        axes = figure.add_subplot()
        for one in drawn:
            assert one.y is not None
            axes.scatter(one.x[::every], one.y[::every], s=26, color=one.colour, alpha=0.7, linewidths=0)
        for one in drawn:
            assert one.y is not None
            mean = one.x.mean(), one.y.mean()
            axes.scatter(*mean, s=210, color=one.colour, edgecolors=GROUND, linewidths=2, zorder=3)
        rates = np.concatenate([one.x for one in drawn])
        logarithmic_axis(axes, rates.min() / 1.12, rates.max() * 1.12)
        axes.set_xlabel("Rate (bits per pixel, logarithmic)")
        axes.set_ylabel("PSNR (dB)")
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        title = "Scatter of bits per pixel against PSNR: " + ", ".join(one.name for one in drawn)
        return svg_text(figure, "rate-distortion", title, {})


def distributions(series: Sequence[Series], name: str, label: str, logarithmic: bool = False) -> str | None:
    """Draw histograms of x as SVG, one row per branch on a common axis, each scaled to its own peak.

    A vertical line is the mean. `name` begins the ids inside the SVG ([a-z-]+), `label` is the axis label with its
    unit. On a logarithmic axis values of 0 and below are left out. None when nothing is left to draw.
    """
    rows = [Series(s.name, s.colour, s.x[s.x > 0] if logarithmic else s.x) for s in series]
    rows = [row for row in rows if len(row.x)]
    if not rows:
        return None
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    low = min(row.x.min() for row in rows)
    high = max(row.x.max() for row in rows)
    with mpl.rc_context(STYLE):
        margin = 0.35 + 0.078 * max(len(_short(row.name)) for row in rows)
        height = 0.62 + 0.46 * len(rows)
        figure = Figure(figsize=(6.2, height))
        bottom = 0.5 / height
        axes = figure.add_axes((margin / 6.2, bottom, 1 - (margin + 0.15) / 6.2, 1 - bottom - 0.04 / height))
        if logarithmic:
            low, high = low / 1.1, high * 1.1
            edges = np.geomspace(low, high, 49)
            logarithmic_axis(axes, low, high)
        else:
            pad = 0.03 * (high - low) or 0.5
            low, high = low - pad, high + pad
            edges = np.linspace(low, high, 49)
            axes.set_xlim(low, high)
            axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        for position, row in enumerate(reversed(rows)):
            counts = np.histogram(row.x, edges)[0]
            tops = position + 0.82 * counts / counts.max()
            axes.stairs(tops, edges, baseline=position, fill=True, color=row.colour, alpha=0.8, linewidth=0)
            axes.plot([row.x.mean()] * 2, [position, position + 0.86], color=INK, linewidth=1.1)
        axes.set_ylim(0, len(rows))
        axes.set_yticks(np.arange(len(rows)) + 0.32, [f"label-{n}" for n in reversed(range(len(rows)))])
        axes.tick_params(axis="y", length=0)
        axes.hlines(np.arange(1, len(rows)), low, high, color=LINE, linewidth=0.6)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
        texts = {f"label-{n}": _short(row.name) for n, row in enumerate(rows)}
        title = f"Histograms of {label}: " + ", ".join(f"{row.name} mean {row.x.mean():.4g}" for row in rows)
        return svg_text(figure, name, title, texts)
