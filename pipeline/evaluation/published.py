"""Rate-distortion curves that others have published, from a JSON file: `{name: {source, points: [{bpp, psnr, …}]}}`."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pipeline.errors import RequestError
from pipeline.requests.figures import read_figures
from pipeline.storage.store import StorageOptions

#: drawn when none are chosen, as far as the file has them
WELL_KNOWN = ("jpeg2000", "webp", "bpg", "vtm", "bmshj2018-hyperprior", "mbt2018-mean")
_MOST_DRAWN = 8


class PublishedPoint(BaseModel):
    """One point: bits per pixel, PSNR in dB, MS-SSIM 0..1, seconds a picture on the publishers' machine."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
    bpp: float = Field(gt=0, le=1000)
    psnr: float = Field(ge=0, le=1000)
    ms_ssim: float | None = Field(None, ge=0, le=1)
    enc_s: float | None = Field(None, ge=0)
    dec_s: float | None = Field(None, ge=0)


class PublishedCurve(BaseModel):
    """A codec's curve, where it is from and how it was taken."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    source: str = Field("", max_length=2000)
    note: str = Field("", max_length=2000)
    points: list[PublishedPoint] = Field(min_length=1, max_length=1000)


_CURVES = TypeAdapter(dict[str, PublishedCurve])
_EXAMPLE = '{"name": {"source": "…", "points": [{"bpp": 0.5, "psnr": 32.1}]}}'


def read_curves(url: str, options: StorageOptions | None = None) -> dict[str, PublishedCurve]:
    """Read all curves of a file at a path or URL. Raises StorageError, and RequestError when it holds no curves."""
    curves = read_figures(url, _CURVES, "rate-distortion curves", _EXAMPLE, options)
    if not curves:
        raise RequestError(f"{url} holds no rate-distortion curves: it is empty")
    return curves


def choose_curves(curves: dict[str, PublishedCurve], names: Sequence[str]) -> list[str]:
    """Choose the names to draw: those asked for, else the well-known ones.

    Raises RequestError for one that is not there.
    """
    for name in names:
        if name not in curves:
            raise RequestError(f"there is no published curve {name!r}; there is {', '.join(curves)}")
    return list(names) or [name for name in WELL_KNOWN if name in curves] or list(curves)[:_MOST_DRAWN]
