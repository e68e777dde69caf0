"""Very many small pictures in one run under a Prefect server: memory and pace over time, growth of Prefect's database.

A server of its own is started with a database of its own. The run is the `develop` flow in a process whose memory is
read every second; the pictures are small PNGs of one colour gradient each, all different.

python -m tests.benchmarks.many_pictures [--count 100000] [--folder FOLDER] [--plot FILE.svg] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

SIDE, A_FOLDER = 32, 5_000
RECIPE = {"branches": {"gamma": [{"step": "gamma", "gamma": 1.2}]}, "output": {"format": "jpeg"}}


def write_pictures(folder: Path, count: int) -> None:
    """So many different pictures of 32 x 32, in folders of 5,000."""
    x, y = np.meshgrid(np.arange(SIDE, dtype=np.uint32), np.arange(SIDE, dtype=np.uint32))
    for number in track(range(count), "writing pictures", transient=True):
        if number % A_FOLDER == 0:
            (folder / f"{number // A_FOLDER:04d}").mkdir(parents=True)
        planes = (x * (1 + number % 7), y * (1 + number // 7 % 7), np.full_like(x, number))
        pixels = np.dstack(planes).astype(np.uint8)
        pixels[0, :4, 0] = [number >> shift & 255 for shift in (0, 8, 16, 24)]
        cv2.imwrite(str(folder / f"{number // A_FOLDER:04d}/{number:07d}.png"), pixels)


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """A Prefect server of its own; gives the address of its API."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **quiet) as server:  # type: ignore[call-overload]
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=1)
                    break
                except OSError:
                    if server.poll() is not None:
                        raise
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/api"
        finally:
            server.terminate()


def develop_flow(source: str, destination: str, api: str, home: str, told: Any) -> None:
    """Run the flow in this process; tells how many pictures are done, with the time, every second, then the end."""
    os.environ |= {"PREFECT_API_URL": api, "PREFECT_HOME": home, "PREFECT_LOGGING_LEVEL": "ERROR"}
    from flows.develop import develop
    from flows.orchestration.progress import listen
    from pipeline.events import Advanced, Event
    from pipeline.requests.pictures import DevelopRequest

    done = 0

    def count(event: Event) -> None:
        nonlocal done
        done += isinstance(event, Advanced)

    def tell() -> None:
        while True:
            told.send((time.time(), done, _memory()))
            time.sleep(1)

    threading.Thread(target=tell, daemon=True).start()
    request = DevelopRequest(source=source, destination=destination, recipe=RECIPE, measure=False, device="cpu")
    with listen(count):
        state = develop(request, return_state=True)
    told.send((time.time(), done, _memory()))
    told.send(state.type.value)


def _memory() -> int:
    """Bytes of memory this process has now."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def measure(source: Path, folder: Path) -> dict[str, Any]:
    """Run the flow in a fresh process under a fresh server; samples of (second, pictures done, bytes of memory)."""
    samples: list[tuple[float, int, int]] = []
    with prefect_server(folder / "prefect") as api:
        before = database_size(folder / "prefect")
        context = multiprocessing.get_context("spawn")
        receive, send = context.Pipe(duplex=False)
        arguments = (str(source), str(folder / "out"), api, str(folder / "client"), send)
        process = context.Process(target=develop_flow, args=arguments)
        started = time.time()
        process.start()
        send.close()
        state = "crashed"
        try:
            while not isinstance(said := receive.recv(), str):
                samples.append((said[0] - started, said[1], said[2]))
            state = said
        except EOFError:
            pass
        process.join()
        # the server writes task runs down some time after they have ended
        time.sleep(10)
        after = database_size(folder / "prefect")
    commits = [json.loads(path.read_text()) for path in (folder / "out").glob("runs/*/shards/*.json")]
    good = sum(commit["good"] for commit in commits)
    return {
        "state": state,
        "good": good,
        "shards": len(commits),
        "database_before": before,
        "database_after": after,
        "samples": samples,
    }


def database_size(home: Path) -> int:
    """Bytes of Prefect's database, its log of writes included."""
    return sum(path.stat().st_size for path in home.glob("prefect.db*"))


def paces(samples: list[tuple[float, int, int]], parts: int = 60) -> list[tuple[float, float]]:
    """Seconds and pictures a second, over parts of the time in which pictures were developed."""
    first = next((at for at, sample in enumerate(samples) if sample[1]), len(samples) - 1)
    chosen = samples[max(0, first - 1) :: max(1, (len(samples) - first) // parts)]
    pairs = itertools.pairwise(chosen)
    return [((a[0] + b[0]) / 2, (b[1] - a[1]) / (b[0] - a[0])) for a, b in pairs if b[0] > a[0]]


def draw(path: Path, result: dict[str, Any], count: int) -> None:
    """Pictures a second and memory over time, one above the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 6), layout="constrained")
    steps = paces(result["samples"])
    above.plot([at for at, _ in steps], [pace for _, pace in steps], color="#246")
    above.set(ylabel="pictures a second", ylim=(0, None), title=f"{count:,} pictures of {SIDE} x {SIDE} in one run")
    below.plot([one[0] for one in result["samples"]], [one[2] / 1e6 for one in result["samples"]], color="#a42")
    below.set(xlabel="seconds", ylabel="memory of the process, MB", ylim=(0, None))
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.savefig(path)


def show(console: Console, result: dict[str, Any], count: int) -> dict[str, Any]:
    """Print the table, and return its figures."""
    samples = result["samples"]
    working = [one for one in samples if one[1]]
    half = [one[2] for one in working if one[1] >= count / 2] or [samples[-1][2]]
    early = [one[2] for one in working if count / 10 <= one[1] < count / 2] or half
    seconds = working[-1][0] - working[0][0] if len(working) > 1 else samples[-1][0]
    figures = {
        "pictures": count,
        "good": result["good"],
        "state": result["state"],
        "shards": result["shards"],
        "seconds": samples[-1][0],
        "pictures_per_s": (working[-1][1] - working[0][1]) / max(seconds, 1e-9) if working else 0.0,
        "memory_first_half_mb": max(early) / 1e6,
        "memory_second_half_mb": max(half) / 1e6,
        "database_growth_mb": (result["database_after"] - result["database_before"]) / 1e6,
        "database_mb": result["database_after"] / 1e6,
    }
    table = Table(title="One run of very many pictures", title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
    for name, value in figures.items():
        shown = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        table.add_row(name.replace("_", " "), str(shown))
    console.print(table)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where pictures and results go; default: a temporary folder")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-many-", dir=options.folder) as name:
        folder = Path(name)
        write_pictures(folder / "source", options.count)
        result = measure(folder / "source", folder)
    figures = show(Console(), result, options.count)
    if options.plot:
        draw(options.plot, result, options.count)
    if options.json:
        options.json.write_text(json.dumps(figures | {"samples": result["samples"]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
