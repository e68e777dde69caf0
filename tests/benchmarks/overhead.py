"""What the pipeline costs: `develop` against a bare OpenCV thread pool that does the same work.

Both read a JPEG, decode it, apply CLAHE to luma and an unsharp mask, encode JPEG of quality 92 and write the file;
their files hold the same pixels, which is checked. They take turns in one process, and a ratio is that of one turn.

python -m tests.benchmarks.overhead [--pictures 500] [--repeats 3] [--prefect] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop
from tests.benchmarks.measuring import in_fresh_process, peak_memory, write_photographs

QUALITY, CLIP_LIMIT, TILE_GRID, AMOUNT, RADIUS = 92, 2.0, 8, 0.6, 1.5
RECIPE = {
    "name": "overhead",
    "branches": {
        "clahe": [
            {"step": "clahe", "clip_limit": CLIP_LIMIT, "tile_grid": TILE_GRID},
            {"step": "unsharp_mask", "amount": AMOUNT, "radius": RADIUS},
        ]
    },
    "output": {"format": "jpeg", "quality": QUALITY},
}
BARE, PLAIN, MEASURED, PREFECT = "bare OpenCV", "develop, metrics off", "develop, metrics on", "develop under Prefect"
WARM_UP = 8

Way = Callable[[Path, Path], None]


class Times(NamedTuple):
    """Seconds by the clock, and seconds of all cores together in this process."""

    wall: float
    cpu: float


def run_bare(source: Path, destination: Path) -> None:
    """What someone who knows OpenCV would write for this one job: a thread a core, no OpenCV threads."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    kernel = cv2.getGaussianKernel(2 * round(4 * RADIUS) + 1, RADIUS, cv2.CV_32F)

    def work(path: Path) -> None:
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        luma = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        flat = cv2.createCLAHE(CLIP_LIMIT, (TILE_GRID, TILE_GRID)).apply(luma)
        up, down = cv2.subtract(flat, luma), cv2.subtract(luma, flat)
        pixels = cv2.subtract(cv2.add(pixels, cv2.merge([up] * 3)), cv2.merge([down] * 3))
        blurred = cv2.sepFilter2D(pixels, cv2.CV_32F, kernel, kernel)
        pixels = cv2.addWeighted(pixels, 1 + AMOUNT, blurred, -AMOUNT, 0, dtype=cv2.CV_8U)
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        (destination / f"{path.name}.jpg").write_bytes(data)

    destination.mkdir(parents=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(work, sorted(source.iterdir())):
            pass
    cv2.setNumThreads(before)


def run_plain(source: Path, destination: Path) -> None:
    """The same by `pipeline.runs.finish.develop`, tables, checks and report included."""
    develop(_request(source, destination, measure=False))


def run_measured(source: Path, destination: Path) -> None:
    """The same with all metrics."""
    develop(_request(source, destination, measure=True))


def run_prefect(source: Path, destination: Path) -> None:
    """The same as a Prefect flow, metrics off."""
    from flows.develop import develop as flow

    flow(_request(source, destination, measure=False))


def _request(source: Path, destination: Path, measure: bool) -> DevelopRequest:
    return DevelopRequest(
        source=str(source), destination=str(destination), recipe=RECIPE, measure=measure, device="cpu"
    )


def measure_speed(ways: dict[str, Way], source: Path, folder: Path, repeats: int) -> list[dict[str, Times]]:
    """Seconds of every way, a dictionary a turn. Turns go forwards and backwards, so that nobody always comes first."""
    turns = []
    for turn in range(repeats):
        times = {}
        order = list(ways.items())[:: -1 if turn % 2 else 1]
        for name, way in track(order, f"turn {turn + 1} of {repeats}", transient=True):
            destination = folder / f"{turn} {name}"
            # what earlier runs wrote is not to be flushed on this one's time
            os.sync()
            wall, cpu = time.perf_counter(), time.process_time()
            way(source, destination)
            times[name] = Times(time.perf_counter() - wall, time.process_time() - cpu)
        turns.append(times)
    return turns


def same_pixels(bare: Path, ours: Path) -> int:
    """How many files of the bare way hold the same pixels as ours."""
    return sum(
        np.array_equal(cv2.imread(str(path)), cv2.imread(str(ours / "pictures" / "clahe" / path.name)))
        for path in bare.iterdir()
    )


def show_speed(console: Console, turns: list[dict[str, Times]], pictures: int) -> dict[str, Any]:
    """Print the table of speeds and return it as data."""
    table = Table(title="Speed, medians of turns", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("way", style="bold", no_wrap=True)
    for heading in ("pictures/s", "ratio", "least … most", "CPU ms each"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = {}
    for name in (BARE, *(name for name in turns[0] if name != BARE)):
        rate = statistics.median(pictures / turn[name].wall for turn in turns)
        ratios = [turn[BARE].wall / turn[name].wall for turn in turns]
        cpu = 1000 * statistics.median(turn[name].cpu for turn in turns) / pictures
        ratio = statistics.median(ratios)
        rows[name] = {"pictures_per_s": rate, "ratio": ratio, "ratios": ratios, "cpu_ms_a_picture": cpu}
        spread = "" if name == BARE else f"{min(ratios):.2f} … {max(ratios):.2f}"
        table.add_row(name, f"{rate:.1f}", f"{ratio:.2f}", spread, f"{cpu:.1f}")
    cost = statistics.median((turn[MEASURED].cpu - turn[PLAIN].cpu) / pictures for turn in turns)
    console.print(table)
    console.print(f"All metrics together cost [bold]{1000 * cost:.1f} ms[/] of one core a picture.\n")
    return {"ways": rows, "metrics_ms_a_picture": 1000 * cost}


def measure_memory(ways: dict[str, Way], sources: dict[int, Path], folder: Path) -> dict[str, dict[int, int]]:
    """Peak memory in bytes of each way for each number of pictures, every time in a process of its own."""
    return {
        name: {
            count: in_fresh_process(way, source, folder / f"memory {count} {name}").peak
            for count, source in sources.items()
        }
        for name, way in track(list(ways.items()), "memory", transient=True)
    }


def show_memory(console: Console, peaks: dict[str, dict[int, int]], imports: int) -> None:
    """Print the table of peak memories."""
    table = Table(title="Peak memory, MB", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("way", style="bold", no_wrap=True)
    for count in next(iter(peaks.values())):
        table.add_column(f"{count} pictures", justify="right", no_wrap=True)
    table.add_column("growth a picture, MB", justify="right", no_wrap=True)
    for name, of in peaks.items():
        few, many = sorted(of)
        growth = (of[many] - of[few]) / (many - few) / 1e6
        table.add_row(name, *(f"{peak / 1e6:.0f}" for peak in of.values()), f"{growth:.3f}")
    console.print(table)
    console.print(f"The imports alone take {imports / 1e6:.0f} MB, most of it PyTorch.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=500, help="at least 50")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prefect", action="store_true", help="also time the flow; its server is started before")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    ways: dict[str, Way] = {BARE: run_bare, PLAIN: run_plain, MEASURED: run_measured}
    with tempfile.TemporaryDirectory(prefix="darkroom-overhead-") as name:
        folder = Path(name)
        if options.prefect:
            os.environ |= {
                "PREFECT_HOME": str(folder / "prefect"),
                "PREFECT_LOGGING_LEVEL": "ERROR",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "DO_NOT_TRACK": "1",
            }
            ways[PREFECT] = run_prefect
        sources = {count: folder / f"source {count}" for count in (WARM_UP, options.pictures // 5, options.pictures)}
        for count, source in sources.items():
            source.mkdir()
            write_photographs(source, count)
        size = sum(path.stat().st_size for path in source.iterdir()) / options.pictures
        console.print(
            f"{options.pictures} photographs of 1200 x 832, {size / 1000:.0f} kB each, "
            f"{len(os.sched_getaffinity(0))} cores\n"
        )
        warm_up = sources.pop(WARM_UP)
        for name, way in ways.items():
            way(warm_up, folder / f"warm up {name}")
        turns = measure_speed(ways, source, folder, options.repeats)
        speed = show_speed(console, turns, options.pictures)
        same = same_pixels(folder / f"0 {BARE}", folder / f"0 {PLAIN}")
        console.print(f"{same} of {options.pictures} files hold the same pixels as the bare way's.\n")
        ways.pop(PREFECT, None)
        peaks = measure_memory(ways, sources, folder)
        show_memory(console, peaks, in_fresh_process(peak_memory).result)
    if options.json:
        content = speed | {"pictures": options.pictures, "same_pixels": same, "peak_bytes": peaks}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
