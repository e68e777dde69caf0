"""The codecs an evaluation compares, and the settings each is tried at: branches of one recipe.

The settings of a lossy codec span about 0.1 to 3 bits per pixel on photographs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import RequestError
from pipeline.requests.catalogue import all_steps

LEARNED = "darkroom"
_LONGEST_NAME = 48


@dataclass(frozen=True)
class CodecGrid:
    """A codec: a codec step with fixed `settings`, tried at `values` of `parameter`; lossless where there is none."""

    name: str
    label: str
    step: str
    parameter: str | None = None
    values: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A branch of the evaluation's recipe: a codec at one value of its parameter (None: lossless)."""

    branch: str
    codec: CodecGrid
    value: float | None

    def steps(self) -> list[dict[str, Any]]:
        """Return the branch's steps as a recipe writes them."""
        varied = {} if self.codec.parameter is None else {self.codec.parameter: self.value}
        return [{"step": self.codec.step} | self.codec.settings | varied]


_JPEG_QUALITIES = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95)

GRIDS = (
    CodecGrid(LEARNED, "Darkroom", "autoencode", "quality", (1, 5, 10, 16, 22, 28, 34, 40, 46, 52, 58, 64)),
    CodecGrid("jpeg-plain", "JPEG, plain", "jpeg", "quality", _JPEG_QUALITIES, {"optimise": False}),
    CodecGrid("jpeg", "JPEG, optimised", "jpeg", "quality", _JPEG_QUALITIES, {"optimise": True, "progressive": True}),
    CodecGrid("webp", "WebP, method 6", "webp", "quality", (0, 3, 10, 20, 35, 50, 65, 77, 85, 90, 95), {"method": 6}),
    CodecGrid("jpeg2000", "JPEG 2000, OpenJPEG", "jpeg2000", "rate", (240, 160, 96, 64, 48, 32, 24, 16, 12, 8)),
    CodecGrid("avif-6", "AVIF, speed 6", "avif", "quality", (8, 20, 30, 40, 50, 58, 66, 74, 82, 90), {"speed": 6}),
    CodecGrid("avif-0", "AVIF, speed 0", "avif", "quality", (10, 30, 50, 65, 80, 90), {"speed": 0}),
    CodecGrid("jpeg-xl", "JPEG XL, effort 7", "jpeg_xl", "quality", (5, 15, 25, 35, 50, 62, 72, 80, 86, 90, 94)),
    CodecGrid("png", "PNG", "png", settings={"level": 9}),
    CodecGrid("tiff-lzw", "TIFF, LZW", "tiff_lzw"),
    CodecGrid("png-huffman", "PNG, Huffman only", "png_huffman"),
)


def choose_codecs(names: Sequence[str], models: Sequence[str]) -> list[CodecGrid]:
    """Choose the codecs of those names (none: all that are installed), the learned one once for every model.

    `models` are names or URLs; none means the shipped one. Raises RequestError for a codec that is unknown or not
    installed, or for models without the learned codec.
    """
    installed = {step.name for step in all_steps()}
    there = [grid for grid in GRIDS if grid.step in installed]
    known = {grid.name: grid for grid in GRIDS}
    for name in names:
        if name not in known:
            raise RequestError(f"there is no codec {name!r}; there is {', '.join(grid.name for grid in there)}")
        if known[name] not in there:
            raise RequestError(f"the codec {name} is not installed: pip install pillow-jxl-plugin, or leave it out")
    chosen = [grid for grid in there if not names or grid.name in names]
    if models and LEARNED not in [grid.name for grid in chosen]:
        raise RequestError(f"a model is given, but --codecs leaves out {LEARNED}; add it or leave out --model")
    return [each for grid in chosen for each in (_of_models(grid, models) if grid.name == LEARNED else [grid])]


def trials(codecs: Sequence[CodecGrid], points: int | None) -> list[Trial]:
    """List all branches to measure, codec by codec; `points` is the most values tried of each (None: all)."""
    tried = []
    for codec in codecs:
        if codec.parameter is None:
            tried.append(Trial(codec.name, codec, None))
        for value in _thinned(codec.values, points):
            tried.append(Trial(f"{codec.name}-{(codec.parameter or '')[0]}{value:g}", codec, value))
    return tried


def _of_models(grid: CodecGrid, models: Sequence[str]) -> list[CodecGrid]:
    """Return the learned codec for every model: under its own name for one, with the models' names for several."""
    if not models:
        return [grid]
    names, labels = [grid.name], [grid.label]
    if len(models) > 1:
        stems = [PurePosixPath(model.replace("\\", "/")).name.removesuffix(".safetensors") for model in models]
        plain = [re.sub(r"[^A-Za-z0-9_.-]", "-", stem)[:_LONGEST_NAME] for stem in stems]
        twice = len(set(plain)) < len(plain)
        names = [f"{grid.name}-{name}" + (f"-{n}" if twice else "") for n, name in enumerate(plain, 1)]
        labels = [f"{grid.label}, {stem}" + (f" ({n})" if twice else "") for n, stem in enumerate(stems, 1)]
    return [
        CodecGrid(name, label, grid.step, grid.parameter, grid.values, {"model": model})
        for name, label, model in zip(names, labels, models, strict=True)
    ]


def _thinned(values: tuple[float, ...], most: int | None) -> list[float]:
    """Choose at most `most` of the values, evenly spread, both ends kept; of one the middle."""
    if most is None or most >= len(values):
        return list(values)
    if most == 1:
        return [values[len(values) // 2]]
    return [values[round(n * (len(values) - 1) / (most - 1))] for n in range(most)]
