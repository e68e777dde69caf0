"""Files with something wrong through a real run: no crash, no reason that is not documented, memory within its budget.

Mutations of every format in a folder and of small files made on the spot, always the same for the same seed, are
developed by a cheap recipe in a process of its own, which is started again when it dies, as a user would. The exit code
is 1 when it died, when a reason is not documented, when a row is missing, or when the budget was not kept.

python -m tests.benchmarks.fuzz FOLDER [--pictures 20000] [--memory "2 GB"] [--seed 0] [--keep FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from pipeline.errors import REASONS
from pipeline.requests.form import parse_size
from tests.benchmarks.measuring import peak_memory
from tests.mutations import mutated
from tests.picture_files import small_files

CHEAP = {
    "name": "fuzz",
    "branches": {"small": [{"step": "resize", "scale": 0.25}], "jpeg": [{"step": "jpeg", "quality": 50}]},
    "output": {"format": "same"},
}
#: seeds are at most so large, so that there are many of them; their mutations announce what they like
MOST_BYTES, PIXEL_LIMIT, DEADLINE_S, MOST_DEATHS = 400_000, 30_000_000, 60, 40


def seeds_of(folder: Path) -> dict[str, list[bytes]]:
    """Files by the ending of their names."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix not in (".csv", ".md") and path.stat().st_size <= MOST_BYTES:
            found[path.suffix.lower()].append(path.read_bytes())
    for name, data in small_files().items():
        found[f".{name.split()[0]}"].append(data)
    return dict(found)


def write_mutations(seeds: dict[str, list[bytes]], folder: Path, count: int, seed: int) -> None:
    """`count` files, as many of each ending."""
    folder.mkdir()
    endings = sorted(seeds)
    for number in track(range(count), "files", transient=True):
        ending = endings[number % len(endings)]
        data = mutated(seeds[ending], seed * 1_000_000_007 + number)
        (folder / f"{number:06d}{ending}").write_bytes(data)


def develop_all(source: str, destination: str, memory: str) -> None:
    """What the child does: one run; its peak goes to standard output."""
    from pipeline.requests.pictures import DevelopRequest
    from pipeline.runs.finish import develop

    request = DevelopRequest(
        source=source,
        destination=destination,
        recipe=CHEAP,
        memory=memory,
        pixel_limit=PIXEL_LIMIT,
        deadline_s=DEADLINE_S,
        frame_limit=100,
        max_failure_rate=1,
        measure=False,
        device="cpu",
    )
    summary = develop(request)
    print(json.dumps({"peak": peak_memory(), "seconds": summary.seconds, "counts": summary.counts}))


def run_until_done(source: Path, destination: Path, memory: str) -> tuple[dict[str, Any], list[int]]:
    """What the last child said, and how those before it ended."""
    deaths: list[int] = []
    while True:
        command = [sys.executable, "-m", "tests.benchmarks.fuzz", str(source), "--child", str(destination)]
        done = subprocess.run(
            [*command, "--memory", memory], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        )
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1]), deaths
        deaths.append(done.returncode)
        if len(deaths) == MOST_DEATHS:
            raise SystemExit(f"{len(deaths)} processes died: {deaths}")


def verdict(destination: Path, count: int, said: dict[str, Any], deaths: list[int], memory: str) -> dict[str, Any]:
    """What was found, and what of it is wrong."""
    failures = (
        ds.dataset(destination / "tables" / "failures").to_table(columns=["key", "reason", "message"]).to_pylist()
    )
    rows = ds.dataset(destination / "tables" / "manifest").to_table(columns=["key", "file"]).to_pylist()
    reasons = Counter(row["reason"] for row in failures)
    wrong = {
        "deaths": deaths,
        "crashed": [(row["key"], row["message"]) for row in failures if row["reason"] == "crashed"],
        "reasons that are not documented": sorted(set(reasons) - set(REASONS)),
        "files without a row": count - len({row["file"] or row["key"] for row in rows}),
        "bytes over the budget": max(0, said["peak"] - parse_size(memory)),
        "deadlines": [row["key"] for row in failures if row["reason"] in ("deadline", "shard_deadline")],
    }
    return {
        "files": count,
        "pictures": len(rows),
        "good": said["counts"]["good"],
        "reasons": dict(reasons.most_common()),
        "peak_bytes": said["peak"],
        "seconds": said["seconds"],
        "wrong": {name: value for name, value in wrong.items() if value},
    }


def show(console: Console, found: dict[str, Any], memory: str) -> None:
    table = Table(title="What became of them", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("reason", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_row("[green]developed[/]", f"{found['good']:,}")
    for reason, count in found["reasons"].items():
        table.add_row(reason, f"{count:,}")
    console.print(table)
    console.print(
        f"{found['files']:,} files, {found['pictures']:,} pictures and frames in {found['seconds']:.0f} s; "
        f"peak memory {found['peak_bytes'] / 1e6:,.0f} MB of {memory}"
    )
    for name, value in found["wrong"].items():
        console.print(f"[bold red]{name}[/]: {escape(str(value))}", soft_wrap=True)
    if not found["wrong"]:
        console.print("[green]no crash, every reason documented, every file a row, memory within its budget[/]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--memory", default="2 GB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where files go that crash or take too long")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        develop_all(str(options.folder), options.child, options.memory)
        return
    console = Console()
    with tempfile.TemporaryDirectory(prefix="darkroom-fuzz-") as name:
        source, destination = Path(name) / "source", Path(name) / "out"
        seeds = seeds_of(options.folder)
        write_mutations(seeds, source, options.pictures, options.seed)
        console.print(f"{options.pictures:,} mutations of {sum(map(len, seeds.values()))} files, {len(seeds)} endings")
        started = time.monotonic()
        said, deaths = run_until_done(source, destination, options.memory)
        found = verdict(destination, options.pictures, said, deaths, options.memory)
        found["seconds"] = round(time.monotonic() - started, 1)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for key in [key for key, _ in found["wrong"].get("crashed", [])] + found["wrong"].get("deadlines", []):
                shutil.copy(source / key, options.keep)
    show(console, found, options.memory)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    # a process that left threads behind in a decoder need not wait for them
    console.file.flush()
    os._exit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
