"""What the tests of exploring share: photographs with planted copies, and a run's destination made of given vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage import data as skimage_data

from pipeline.destination.layout import part_path
from pipeline.destination.parquet import to_parquet

MODEL = "made@0123456789ab"


def photographs() -> dict[str, np.ndarray]:
    """Six different photographs, H x W x 3 uint8, none larger than 300 pixels a side."""
    coffee, astronaut = skimage_data.coffee(), skimage_data.astronaut()
    whole = {
        "people/astronaut": astronaut[:300, 100:400],
        "people/shuttle": astronaut[250:, 300:],
        "things/coffee": coffee[100:400, 150:450],
        "things/rocket": skimage_data.rocket()[:300, 200:500],
        "animals/cat": skimage_data.chelsea()[:, 60:360],
        "things/retina": skimage_data.retina()[500:800, 500:800],
    }
    return {name: np.ascontiguousarray(pixels) for name, pixels in whole.items()}


def write_png(folder: Path, name: str, pixels: np.ndarray) -> None:
    """A picture as NAME.png below a folder."""
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[:, :, ::-1])


def latents_row(key: str, vector: np.ndarray, **changes: Any) -> dict[str, Any]:
    """A row of the latents table for a vector of whole numbers of -127..127."""
    row = {"key": key, "shard": 0, "sequence": 0, "branch": "vectors", "model": MODEL, "latent": vector.astype(np.int8)}
    row |= {"shape": [len(vector)], "scale": [0.5], "width": 8, "height": 8, "grey": False}
    return row | changes


def write_run(destination: Path, parts: list[list[dict[str, Any]]], run: str = "r1", sequence: int = 0) -> Path:
    """A finished run whose latents table has these rows, part by part; its pictures are nowhere."""
    folder = destination / "runs" / run
    folder.mkdir(parents=True)
    count = sum(map(len, parts))
    plan = {"run": run, "fingerprint": "f", "source": str(destination / "pictures-that-were"), "sequence": sequence}
    plan |= {"parts": "planning-0123456789ab"}
    (folder / "plan.json").write_text(json.dumps(plan | {"objects": count, "shards": len(parts)}))
    recipe = {"branches": {"vectors": [{"step": "represent"}]}}
    (folder / "run.json").write_text(json.dumps({"counts": {"latents": count}, "recipe": recipe}))
    for shard, rows in enumerate(parts):
        path = destination / part_path("latents", run, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_parquet("latents", rows))
    return destination
