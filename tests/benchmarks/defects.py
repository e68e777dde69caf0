"""Defects in textures, made by procedure: how well odd pictures, and odd pixels, are told from usual ones.

    python -m tests.benchmarks.defects [--count 48] [--odd 3] [--seeds 3] [--kind KIND] [--write FOLDER] [--json FILE]

Nothing is said to be usual: every picture is judged by all others, as exploring does. AUROC is the chance that a
picture with a defect scores higher than one without, and that a pixel of a defect is hotter than another. Ranks are
those of the pictures with a defect, best possible 1 to `--odd`. "squeezed" is how exploring did it before: features of
`representation-small` on pictures squeezed to its 32 x 32, each patch against the nearest of all other pictures.
`--write` leaves the pictures as PNG files, those with a defect called so, and masks in a folder of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch

from pipeline.exploration.anomalies.heat import heat_map
from pipeline.exploration.anomalies.memory import fit_memory, sample
from pipeline.exploration.anomalies.patches import patches_of
from pipeline.networks.encoders import open_autoencoder
from tests.benchmarks.anomaly_digits import area
from tests.benchmarks.small_autoencoders import Row, print_rows
from tests.defects import KINDS, Made, made

#: what the pixels' AUROC is taken over: every so many
_EVERY = 3


@click.command()
@click.option("--count", default=48, help="pictures of each kind")
@click.option("--odd", default=3, help="of which have a defect")
@click.option("--seeds", default=3, help="sets of each kind")
@click.option("--kind", type=click.Choice(list(KINDS)), multiple=True, help="only these")
@click.option("--write", type=click.Path(path_type=Path), help="leave the pictures in this folder")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(count: int, odd: int, seeds: int, kind: tuple[str, ...], write: Path | None, out: Path | None) -> None:
    """Make sets with defects and find them."""
    rows = []
    for name in kind or KINDS:
        for seed in range(seeds):
            pictures = made(name, count, odd, seed=seed)
            if write:
                _write(write / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}", pictures)
            for method, judged in METHODS.items():
                rows.append({"what": name, "seed": seed, "patches": method} | _figures(pictures, judged(pictures)))
    for method in METHODS:
        own = [row for row in rows if row["patches"] == method]
        rows.append({"what": "mean", "patches": method} | {name: _mean(own, name) for name in ("pictures", "pixels")})
    print_rows("AUROC, %, and ranks of pictures with a defect", rows)
    if out:
        out.write_text(json.dumps(rows, indent=2) + "\n")


def by_patches(pictures: Sequence[Made]) -> list[np.ndarray]:
    """Judge pictures as exploring does: the distances of their patches, h x w each."""
    patches = [patches_of(one.pixels) for one in pictures]
    memory = fit_memory([sample(each, len(patches)) for each in patches])
    return [memory.distances(each, number) for number, each in enumerate(patches)]


def _squeezed(pictures: Sequence[Made]) -> list[np.ndarray]:
    network = open_autoencoder("representation-small").network.eval()
    _, height, width = network.shape
    small = [cv2.resize(one.pixels, (width, height), interpolation=cv2.INTER_AREA) for one in pictures]
    with torch.inference_mode():
        features = network.features(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255)
        assert features is not None
        mean = torch.nn.functional.avg_pool2d(features.float(), 3, 1, 1, count_include_pad=False)
        rows = mean.flatten(2).transpose(1, 2)
        away = [
            torch.cdist(rows[one], torch.cat([rows[:one], rows[one + 1 :]]).flatten(0, 1)).amin(dim=1)
            for one in range(len(rows))
        ]
    return [each.reshape(mean.shape[2:]).numpy() for each in away]


METHODS: dict[str, Callable[[Sequence[Made]], list[np.ndarray]]] = {"squeezed": _squeezed, "own size": by_patches}


def _figures(pictures: Sequence[Made], distances: Sequence[np.ndarray]) -> Row:
    odd = np.array([one.odd for one in pictures])
    scores = np.array([each.max() for each in distances])
    masks = np.stack([one.mask for one in pictures])
    maps = np.stack([_spread(each, *masks.shape[1:]) for each in distances])
    order = np.argsort(-scores, kind="stable")
    return {
        "pictures": 100 * area(odd, scores),
        "pixels": 100 * area(masks.ravel()[::_EVERY], maps.ravel()[::_EVERY]),
        "ranks": " ".join(str(rank + 1) for rank in np.flatnonzero(odd[order])),
        "hottest in it": int(sum(masks[row].flat[maps[row].argmax()] for row in np.flatnonzero(odd))),
    }


def _spread(distances: np.ndarray, height: int, width: int) -> np.ndarray:
    # the network's few patches reach to the border
    if min(distances.shape) < 8:
        return cv2.resize(distances, (width, height), interpolation=cv2.INTER_CUBIC)
    return heat_map(distances, height, width)


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _write(folder: Path, pictures: Sequence[Made]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(pictures):
        name = f"{number:03d}{'-defect' if one.odd else ''}"
        cv2.imwrite(str(folder / f"{name}.png"), one.pixels[:, :, ::-1])
        if one.odd:
            masks = folder.with_name(f"{folder.name}-masks")
            masks.mkdir(exist_ok=True)
            cv2.imwrite(str(masks / f"{name}.png"), one.mask.astype(np.uint8) * 255)


if __name__ == "__main__":
    main()
