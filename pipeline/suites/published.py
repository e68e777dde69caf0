"""Figures that others have published of restorations, from a JSON file of lists of rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pipeline.errors import RequestError
from pipeline.requests.figures import read_figures
from pipeline.storage.store import StorageOptions

#: what folders of well-known sets are called, beside the sets' own names
_FOLDERS = {"kodak": "Kodak24", "bsd68": "CBSD68", "bsd100": "B100", "bsds100": "B100"}
#: sets of the literature that are crops of what is at hand
CROPS = {"Kodak24": 500}


class DenoisingRow(BaseModel):
    """A method at one noise level on one set: PSNR in dB, noise on floats."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
    method: str = Field(min_length=1, max_length=200)
    dataset: str = Field(max_length=200)
    sigma: float = Field(gt=0, le=255)
    psnr_db: float = Field(ge=0, le=1000)
    source: str = Field("", max_length=2000)
    note: str = Field("", max_length=2000)


class SuperResolutionRow(BaseModel):
    """A method at one scale on one set: PSNR in dB and SSIM, on luma."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
    method: str = Field(min_length=1, max_length=200)
    dataset: str = Field(max_length=200)
    scale: int = Field(ge=1, le=64)
    psnr_y_db: float = Field(ge=0, le=1000)
    ssim_y: float | None = Field(None, ge=-1, le=1)
    source: str = Field("", max_length=2000)
    note: str = Field("", max_length=2000)


class PublishedSource(BaseModel):
    """The place that rows are from."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    repo: str = Field("", max_length=2000)
    path: str = Field("", max_length=2000)
    commit: str = Field("", max_length=200)


class Published(BaseModel):
    """A file of published figures. Rows of one method, set and setting may contradict each other; the first counts."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    sources: dict[str, PublishedSource] = Field(default_factory=dict, max_length=1000)
    denoise_colour: list[DenoisingRow] = Field(default_factory=list, max_length=10_000)
    denoise_gray_bsd68: list[DenoisingRow] = Field(default_factory=list, max_length=10_000)
    super_resolution: list[SuperResolutionRow] = Field(default_factory=list, max_length=10_000)


_FILE = TypeAdapter(Published)
_EXAMPLE = '{"denoise_colour": [{"method": "…", "dataset": "CBSD68", "sigma": 25, "psnr_db": 31.2}]}'


def read_published(url: str, options: StorageOptions | None = None) -> Published:
    """Read the figures of a file at a path or URL. Raises StorageError, and RequestError when it holds none."""
    found = read_figures(url, _FILE, "figures of restorations", _EXAMPLE, options)
    if not (found.denoise_colour or found.denoise_gray_bsd68 or found.super_resolution):
        raise RequestError(
            f"{url} holds no figures of restorations: "
            "none of the lists denoise_colour, denoise_gray_bsd68, super_resolution has a row"
        )
    return found


def published_sets(published: Published, suite: str, grey: bool) -> list[str]:
    """List the names of the sets that there are figures of."""
    return list(dict.fromkeys(row.dataset for row in _rows(published, suite, grey) if row.dataset != "any"))


def guess_set(folder: str, sets: Sequence[str]) -> str | None:
    """Guess the set from a source's last folder: `…/cbsd68` is CBSD68, `…/kodak` Kodak24; None where none is known."""
    plain = re.sub(r"[^a-z0-9]", "", folder.rstrip("/").rpartition("/")[2].lower())
    known = {name.lower(): name for name in sets} | {alias: name for alias, name in _FOLDERS.items() if name in sets}
    # grey figures are of the same pictures under another name
    return known.get(plain) or (known.get(plain.removeprefix("c")) if plain.startswith("c") else None)


def published_rows(published: Published, suite: str, dataset: str, grey: bool) -> list[dict[str, Any]]:
    """List rows with `method`, `setting` (of the suite), `source` and scores, one for every method and setting."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in _rows(published, suite, grey):
        if row.dataset not in (dataset, "any"):
            continue
        entry: dict[str, Any] = {"method": row.method, "source": _source(published, row.source)}
        if isinstance(row, DenoisingRow):
            entry |= {"setting": f"float-{row.sigma:g}", "psnr": row.psnr_db}
        else:
            entry |= {"setting": f"x{row.scale}", "psnr_y": row.psnr_y_db, "ssim_y": row.ssim_y}
        rows.setdefault((entry["method"], entry["setting"]), entry)
    return list(rows.values())


def _rows(published: Published, suite: str, grey: bool) -> Sequence[DenoisingRow | SuperResolutionRow]:
    if suite == "denoise":
        return published.denoise_gray_bsd68 if grey else published.denoise_colour
    return published.super_resolution if suite == "upscale" and not grey else []


def _source(published: Published, name: str) -> str:
    found = published.sources.get(name)
    return f"{found.repo}, {found.path}" if found and found.repo.strip("- ") else name
