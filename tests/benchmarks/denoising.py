"""The shipped denoiser against OpenCV's and the sliding DCT, on noisy input as a pipeline has it: rounded to 8 bit.

python -m tests.benchmarks.denoising FOLDER [--every N] [--json FILE] [--card]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from models.inference import apply_in_batches
from models.registry import WEIGHTS
from pipeline.metrics import psnr
from pipeline.steps import find
from pipeline.steps.degrade import generator_for

SIGMAS = (15, 25, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every n-th picture")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--card", action="store_true", help="write the figures to the shipped model's card")
    options = parser.parse_args()
    paths = sorted(p for p in options.folder.iterdir() if p.suffix in (".png", ".jpg"))[:: options.every]
    pictures = {p.name: np.ascontiguousarray(cv2.imread(str(p))[:, :, ::-1]) for p in paths}
    results = {name: measure(run, pictures) for name, run in methods().items()}
    table = Table(title=f"PSNR dB over {len(pictures)} pictures of {options.folder.name}", title_justify="left")
    for column in ("method", *(f"sigma {sigma}" for sigma in SIGMAS), "s / picture"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, row in results.items():
        table.add_row(name, *(f"{row[str(sigma)]:.2f}" for sigma in SIGMAS), f"{row['seconds']:.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))
    if options.card:
        write_card(results, options.folder.name, len(pictures))


def methods() -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    """Name to function of (noisy picture, sigma); OpenCV's get settings for the sigma, the network does not."""
    return {
        "noisy": lambda noisy, sigma: noisy,
        "Gaussian blur": lambda noisy, sigma: _step("gaussian", noisy, sigma=0.6 + sigma / 50),
        "bilateral": lambda noisy, sigma: _step("bilateral", noisy, sigma_colour=min(3.0 * sigma, 200)),
        "non-local means": lambda noisy, sigma: _step("non_local_means", noisy, strength=0.9 * sigma),
        "sliding DCT": lambda noisy, sigma: _step("dct_denoise", noisy, sigma=float(sigma)),
        "denoiser-small (blind)": _network(),
    }


def measure(run: Callable[[np.ndarray, int], np.ndarray], pictures: dict[str, np.ndarray]) -> dict[str, float]:
    scores: dict[str, float] = {}
    started = time.perf_counter()
    for sigma in SIGMAS:
        step = find("gaussian_noise")
        assert step.function is not None
        parameters = step.parameters(sigma=sigma)  # type: ignore[call-arg]
        each = []
        for name, clean in pictures.items():
            noisy = step.function(clean, parameters, generator_for(7, name))
            each.append(psnr(run(noisy, sigma), clean))
        scores[str(sigma)] = float(np.mean(each))
    return scores | {"seconds": (time.perf_counter() - started) / len(SIGMAS) / len(pictures)}


def write_card(results: dict[str, dict[str, float]], folder: str, count: int) -> None:
    path = WEIGHTS / "denoiser-small.json"
    card: dict[str, Any] = json.loads(path.read_text())
    ours = results["denoiser-small (blind)"]
    kept = {name: value for name, value in card["figures"].items() if name.startswith("held-out")}
    for sigma in SIGMAS:
        others = ", ".join(f"{name} {row[str(sigma)]:.2f}" for name, row in results.items() if row is not ours)
        kept[f"{folder} ({count} pictures), sigma {sigma}, 8-bit input"] = f"{ours[str(sigma)]:.2f} dB ({others})"
    card["figures"] = kept
    card["command"] = f"python -m tests.benchmarks.denoising {folder.upper()}_FOLDER --card"
    path.write_text(json.dumps(card, indent=2) + "\n")


def _step(name: str, pixels: np.ndarray, **parameters: Any) -> np.ndarray:
    step = find(name)
    assert step.function is not None
    return step.function(pixels, step.parameters(**parameters))


def _network() -> Callable[[np.ndarray, int], np.ndarray]:
    step = find("denoise")
    assert step.load is not None
    network = step.load(step.parameters())
    apply = partial(apply_in_batches, device="cpu", batch=1)
    return lambda noisy, sigma: network.develop(noisy, apply)


if __name__ == "__main__":
    main()
