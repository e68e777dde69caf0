"""The shipped autoencoder against JPEG on a folder of pictures (Kodak): whole-file bpp, PSNR on 8-bit output.

python -m tests.benchmarks.rate_distortion FOLDER [--json FILE] [--card]
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from models.codec.codec import Codec, compress, decompress
from models.codec.network import Autoencoder
from models.inference import apply_in_batches
from models.registry import WEIGHTS, load_model
from pipeline.metrics import ms_ssim, psnr
from pipeline.steps import find

QUALITIES = (1, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64)
JPEG_QUALITIES = (5, 8, 10, 15, 20, 25, 30, 40, 50, 60, 70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--card", action="store_true", help="write the figures to the shipped model's card")
    parser.add_argument("--every", type=int, default=1, help="only every n-th picture")
    options = parser.parse_args()
    pictures = [
        np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])
        for path in sorted(options.folder.glob("*.png"))[:: options.every]
    ]
    ours, jpeg = measure_autoencoder(pictures), measure_jpeg(pictures)
    show(ours, jpeg)
    figures = compare(ours, jpeg)
    for name, value in figures.items():
        print(f"{name}: {value}")
    if options.json:
        options.json.write_text(json.dumps({"autoencoder": ours, "jpeg": jpeg, "figures": figures}, indent=2))
    if options.card:
        write_card(ours, figures, len(pictures))


def measure_autoencoder(pictures: list[np.ndarray]) -> list[dict[str, float]]:
    """One point a quality: means over pictures of whole-file bpp, PSNR and MS-SSIM."""
    model = load_model("autoencoder-small", "autoencode")
    assert isinstance(model.network, Autoencoder)
    codec = Codec(model.network, bytes.fromhex(model.card.sha256[:16]))
    apply = partial(apply_in_batches, device="cpu", batch=1)
    points = []
    for quality in QUALITIES:
        rows = []
        for picture in pictures:
            data, _ = compress(codec, picture, quality, apply)
            rows.append(_row(picture, decompress(codec, data, apply), len(data)))
        points.append({"quality": quality} | _means(rows))
    return points


def measure_jpeg(pictures: list[np.ndarray]) -> list[dict[str, float]]:
    """The same for JPEG, 4:2:0, with optimised Huffman tables (Pillow)."""
    step = find("jpeg")
    assert step.encode is not None
    assert step.decode is not None
    points = []
    for quality in JPEG_QUALITIES:
        parameters = step.parameters(quality=quality, optimise=True)  # type: ignore[call-arg]
        rows = []
        for picture in pictures:
            data = step.encode(picture, parameters)
            rows.append(_row(picture, step.decode(data), len(data)))
        points.append({"quality": quality} | _means(rows))
    return points


def compare(ours: list[dict[str, float]], jpeg: list[dict[str, float]]) -> dict[str, float]:
    """Rate of ours over JPEG's at equal PSNR, for JPEG points below 0.5 bpp; and the PSNR gain at equal rates."""
    by_psnr = sorted((p["psnr"], np.log(p["bpp"])) for p in ours)
    by_rate = sorted((np.log(p["bpp"]), p["psnr"]) for p in ours)
    figures = {}
    for point in jpeg:
        if point["bpp"] >= 0.5:
            continue
        if by_psnr[0][0] <= point["psnr"] <= by_psnr[-1][0]:
            rate = float(np.exp(np.interp(point["psnr"], *zip(*by_psnr, strict=True))))
            figures[f"rate against JPEG at {point['psnr']:.2f} dB"] = round(rate / point["bpp"] - 1, 4)
        if by_rate[0][0] <= np.log(point["bpp"]) <= by_rate[-1][0]:
            score = float(np.interp(np.log(point["bpp"]), *zip(*by_rate, strict=True)))
            figures[f"dB over JPEG at {point['bpp']:.3f} bpp"] = round(score - point["psnr"], 3)
    return figures


def show(ours: list[dict[str, float]], jpeg: list[dict[str, float]]) -> None:
    table = Table(title="rate and distortion, means over pictures", title_justify="left")
    for column in ("codec", "quality", "bpp", "PSNR dB", "MS-SSIM"):
        table.add_column(column, justify="left" if column == "codec" else "right")
    for name, points in (("autoencoder-small", ours), ("JPEG 4:2:0 optimised", jpeg)):
        for p in points:
            cells = (f"{p['quality']:g}", f"{p['bpp']:.4f}", f"{p['psnr']:.2f}", f"{p['ms_ssim']:.4f}")
            table.add_row(name, *cells)
        table.add_section()
    Console().print(table)


def write_card(ours: list[dict[str, float]], figures: dict[str, float], count: int) -> None:
    path = WEIGHTS / "autoencoder-small.json"
    card: dict[str, Any] = json.loads(path.read_text())
    measured = {
        f"Kodak ({count} pictures) at quality {p['quality']}": f"{p['bpp']:.4f} bpp, {p['psnr']:.2f} dB, "
        f"MS-SSIM {p['ms_ssim']:.4f}"
        for p in ours
        if p["quality"] % 8 == 0
    }
    kept = {name: value for name, value in card["figures"].items() if name.startswith("held-out")}
    card["figures"] = kept | measured | {f"Kodak: {name}": value for name, value in figures.items()}
    card["command"] = "python -m tests.benchmarks.rate_distortion KODAK_FOLDER --card"
    path.write_text(json.dumps(card, indent=2) + "\n")


def _row(picture: np.ndarray, decoded: np.ndarray, size: int) -> dict[str, float]:
    return {
        "bpp": 8 * size / (picture.shape[0] * picture.shape[1]),
        "psnr": psnr(decoded, picture),
        "ms_ssim": ms_ssim(decoded, picture),
    }


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


if __name__ == "__main__":
    main()
