"""A GPU kept busy: pictures a second of `denoise` and `compress` end to end, where the time goes, how busy the GPU is.

Files are read, decoded, developed on the GPU, encoded and written; metrics are off. How busy the GPU is comes from
nvidia-smi, five times a second, from the first picture to the last. Beside them, JPEGs decoded by OpenCV on all cores
and by nvJPEG, which the pipeline does not use: its pixels differ from those of every CPU.

Says so and ends well where there is no GPU.

python -m tests.benchmarks.device_throughput [--pictures 500] [--batch 8] [--workers N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torchvision.io import ImageReadMode, decode_jpeg

from pipeline.events import Advanced
from pipeline.reports.stage_figures import share, slowest
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop
from pipeline.threads import cores
from tests.benchmarks.measuring import write_photographs
from tests.runs import only

RECIPES: dict[str, dict[str, Any]] = {
    "denoise": {
        "branches": {"denoised": [{"step": "denoise", "auto": False}]},
        "output": {"format": "jpeg", "quality": 92},
    },
    "compress": {"branches": {"compressed": [{"step": "autoencode", "quality": 24}]}, "output": {"format": "none"}},
}
WARM_UP = 16


@contextmanager
def watched(device: int) -> Iterator[list[float]]:
    """Shares (0..1) of time in which the GPU had work, five a second, for as long as the block lasts."""
    query = [
        "nvidia-smi",
        f"--id={device}",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        "-lms",
        "200",
    ]
    process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
    shares: list[float] = []

    def note() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit():
                shares.append(int(line) / 100)

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    try:
        yield shares
    finally:
        process.kill()
        process.wait()
        thread.join()


def run(name: str, source: Path, destination: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One recipe over all pictures."""
    moments: list[float] = []
    request = DevelopRequest(
        source=str(source),
        destination=str(destination),
        recipe=RECIPES[name] | {"name": name},
        measure=False,
        device="cuda",
        batch=options.batch,
        workers=options.workers,
    )
    with watched(torch.cuda.current_device()) as shares:
        summary = develop(request, tell=only(Advanced, lambda _: moments.append(time.perf_counter())))
    if summary.counts["failed"] or summary.counts["branch_failures"]:
        raise SystemExit(f"{name}: {summary.reasons}")
    seconds = moments[-1] - moments[0]
    return {
        "pictures_per_s": (len(moments) - 1) / seconds,
        "gpu_busy": statistics.mean(shares) if shares else None,
        "stages": summary.stages,
    }


def decoding(source: Path) -> dict[str, float]:
    """JPEGs decoded a second: by OpenCV on all cores, by nvJPEG in batches."""
    files = [np.fromfile(path, np.uint8) for path in sorted(source.iterdir())]
    cv2.setNumThreads(1)
    started = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda data: cv2.imdecode(data, cv2.IMREAD_COLOR), files))
    rates = {"OpenCV": len(files) / (time.perf_counter() - started)}
    tensors = [torch.from_numpy(data) for data in files]
    for _ in ("to warm up", "to measure"):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for start in range(0, len(tensors), 32):
            decode_jpeg(tensors[start : start + 32], mode=ImageReadMode.RGB, device="cuda")
        torch.cuda.synchronize()
        rates["nvJPEG"] = len(files) / (time.perf_counter() - started)
    return rates


def show(console: Console, name: str, found: dict[str, Any]) -> None:
    """The figures of a recipe, and its stages."""
    busy = "unknown" if found["gpu_busy"] is None else f"{found['gpu_busy']:.0%}"
    console.print(f"[bold]{name}[/]: {found['pictures_per_s']:.1f} pictures/s, GPU busy {busy}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("stage", "busy, s", "waiting, s", "share of its threads"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, figures in found["stages"].items():
        table.add_row(stage, f"{figures['busy_s']:.1f}", f"{figures['waiting_s']:.1f}", f"{share(figures):.0%}")
    console.print(table)
    pace = slowest(found["stages"])
    if pace:
        console.print(f"slowest: {pace.text()}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    if not torch.cuda.is_available():
        console.print("no GPU here: nothing is measured")
        return
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "cores": cores(), "pictures": options.pictures}
    console.print(f"{found['device']}, {found['cores']} cores, {options.pictures} photographs of 1200 x 832\n")
    with tempfile.TemporaryDirectory(prefix="darkroom-device-") as name:
        folder = Path(name)
        for count, place in ((WARM_UP, "warm up"), (options.pictures, "source")):
            (folder / place).mkdir()
            write_photographs(folder / place, count)
        for recipe in RECIPES:
            run(recipe, folder / "warm up", folder / f"warm up {recipe}", options)
            found[recipe] = run(recipe, folder / "source", folder / recipe, options)
            show(console, recipe, found[recipe])
        found["decoding"] = decoding(folder / "source")
    console.print(
        "JPEGs decoded a second: " + ", ".join(f"{way} {rate:.0f}" for way, rate in found["decoding"].items())
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
