"""What it costs to plan very many pictures: a file system that only has names, listed, cut and written as a plan.

The names are of 10,000 objects a folder, a megabyte each. With --again the same source is planned once more after a run
over all of it, whose manifest is made up: every name is joined with it, and one in a thousand is new.

python -m tests.benchmarks.planning [--count 10000000] [--again] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.spec import AbstractFileSystem
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.destination.layout import part_path
from pipeline.destination.plans import read_plan
from pipeline.destination.schemas import SCHEMAS
from pipeline.events import Event, Listed
from pipeline.requests.job import resolve
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.planning import plan_run
from pipeline.storage.store import write
from tests.benchmarks.measuring import in_fresh_process

A_FOLDER = 10_000
RECIPE = {"branches": {"kept": []}, "output": {"format": "none"}}


class Names(AbstractFileSystem):
    """`names://COUNT`: that many objects in folders of 10,000, listed a folder at a time; nothing can be read."""

    protocol = "names"
    cachable = False

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[dict[str, Any]]:
        count, _slash, folder = path.partition("/")
        if not folder:
            folders = range(-(-int(count) // A_FOLDER))
            return [{"name": f"{count}/{number:06d}", "size": 0, "type": "directory"} for number in folders]
        first = int(folder) * A_FOLDER
        return [
            {"name": f"{path}/{at:09d}.jpg", "size": 1_000_000, "type": "file", "ETag": f"{at:032x}"}
            for at in range(first, min(first + A_FOLDER, int(count)))
        ]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": 0, "type": "directory"}


# for every process that loads this: what pretends that a run is done opens its source, too
fsspec.register_implementation("names", Names, clobber=True)


def plan_names(count: int, destination: str) -> dict[str, Any]:
    """Plan so many names in this process; seconds at every 100,000 names, and what was planned."""
    request = DevelopRequest(source=f"names://{count}", destination=destination, recipe=RECIPE, suffixes=(".jpg",))
    started = time.perf_counter()
    seen: list[tuple[int, float]] = []

    def listing(event: Event) -> None:
        if not isinstance(event, Listed):
            return
        names = event.objects
        if not seen or names - seen[-1][0] >= 100_000 or names == count:
            seen.append((names, time.perf_counter() - started))

    cpu = time.process_time()
    plan = plan_run(resolve(request), listing)
    seconds = time.perf_counter() - started
    return {
        "run": plan.run,
        "objects": plan.objects,
        "shards": plan.shards,
        "done": plan.done,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "first_told_s": seen[0][1],
        "names_over_time": seen,
    }


def pretend_done(count: int, destination: str, run: str) -> None:
    """Make up the manifest of a finished run over all planned names, but every thousandth as it was before."""
    request = DevelopRequest(source=f"names://{count}", destination=destination, recipe=RECIPE)
    store = resolve(request).destination
    plan = read_plan(store, run)
    failures = SCHEMAS["failures"].empty_table()
    for shard in range(plan.shards):
        part = pq.read_table(Path(destination) / f"runs/{plan.parts}/part-{shard:05d}.parquet")
        etags = [tag if at % 1000 else "before" for at, tag in enumerate(part["etag"].to_pylist())]
        columns = {"key": part["key"], "file": part["file"], "etag": pa.array(etags), "frames": part["frames"]}
        for table, rows in (("manifest", pa.table(columns)), ("failures", failures)):
            sink = pa.BufferOutputStream()
            pq.write_table(rows, sink, compression="zstd")
            write(store, part_path(table, run, shard), sink.getvalue())
    account = {"counts": {"failed": 0, "objects": plan.objects}}
    write(store, f"runs/{run}/run.json", json.dumps(account).encode())
    write(store, f"runs/{run}/_SUCCESS", b"")


def show(console: Console, rows: dict[str, tuple[dict[str, Any], int]]) -> None:
    table = Table(title="Planning", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("what", no_wrap=True)
    for heading in ("names", "planned", "shards", "s", "CPU s", "names/s", "first s", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, (result, peak) in rows.items():
        names = result["objects"] + result["done"]
        cells = [f"{names:,}", f"{result['objects']:,}", f"{result['shards']:,}", f"{result['seconds']:.1f}"]
        cells += [f"{result['cpu_seconds']:.1f}", f"{names / result['seconds']:,.0f}"]
        table.add_row(name, *cells, f"{result['first_told_s']:.2f}", f"{peak / 1e6:.0f}")
    console.print(table)
    for name, (result, _) in rows.items():
        seen = result["names_over_time"]
        steps = [seen[round(at * (len(seen) - 1) / 5)] for at in range(6)] if len(seen) > 5 else seen
        rates = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in itertools.pairwise(steps) if b[1] > a[1]]
        console.print(f"{name}, names/s over time: {', '.join(f'{rate:,.0f}' for rate in rates)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--again", action="store_true", help="plan once more after a run over all of it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    rows: dict[str, tuple[dict[str, Any], int]] = {}
    with tempfile.TemporaryDirectory(prefix="darkroom-planning-") as folder:
        measured = in_fresh_process(plan_names, options.count, folder)
        rows["first plan"] = (measured.result, measured.peak)
        if options.again:
            pretend_done(options.count, folder, measured.result["run"])
            measured = in_fresh_process(plan_names, options.count, folder)
            rows["after a run"] = (measured.result, measured.peak)
    show(console, rows)
    if options.json:
        content = {name: result | {"peak_bytes": peak} for name, (result, peak) in rows.items()}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
