"""A folder of awkward pictures through the whole pipeline: every file must be a good row or a telling failure; where
it holds several frames, every one of them.

The folder holds MANIFEST.csv with columns `file` and `expected`: ok (a good row), reject or load_error (a failure),
needs_plugin (a failure of reason unsupported), either (both will do). The exit code is 1 when one is missed, when the
run hangs, or when a branch fails on a picture that could be read.

python -m tests.benchmarks.awkward FOLDER [--limit-s 1800]
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop
from tests.benchmarks.measuring import in_fresh_process

CHEAP = {
    "name": "cheap",
    "branches": {
        "equalise": [{"step": "equalise"}],
        "sobel": [{"step": "sobel_sharpen"}],
        "webp": [{"step": "webp", "quality": 60}],
    },
    "output": {"format": "same"},
}
#: what each expectation allows, as statuses and reasons of the manifest table
BAD_FILE = {"truncated", "too_large", "unsupported", "corrupt", "not_an_image"}
ALLOWED = {
    "ok": {"ok"},
    "reject": BAD_FILE,
    "load_error": {"truncated", "corrupt"},
    "needs_plugin": {"unsupported"},
    "either": BAD_FILE | {"ok"},
    "the list": {"not_an_image"},
}


def run(folder: str, destination: str, recipe: str | dict[str, Any]) -> int:
    """Develop the folder and return how many rows the metrics table has."""
    request = DevelopRequest(source=folder, destination=destination, recipe=recipe, device="cpu", max_failure_rate=1)
    return develop(request).counts["rows"]


def rows_of(destination: Path, table: str) -> list[dict[str, Any]]:
    """All rows of one of the run's tables."""
    return ds.dataset(destination / "tables" / table, format="parquet").to_table().to_pylist()


def expectations(folder: Path) -> dict[str, str]:
    """Expectation by key, the list itself included."""
    with (folder / "MANIFEST.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: row["expected"] for row in csv.DictReader(file)} | {"MANIFEST.csv": "the list"}


def check(console: Console, folder: Path, name: str, recipe: str | dict[str, Any], limit_s: float) -> int:
    """Run one recipe, print what became of the files, and return how many expectations were missed."""
    expected = expectations(folder)
    with tempfile.TemporaryDirectory(prefix="darkroom-awkward-") as place:
        try:
            measured = in_fresh_process(run, str(folder), place, recipe, limit_s=limit_s)
        except TimeoutError:
            console.print(f"[bold red]{name}: not done after {limit_s:g} s[/]")
            return 1
        manifest, metrics, failures = (rows_of(Path(place), table) for table in ("manifest", "metrics", "failures"))
    # a file of several frames is as good as its worst
    outcome: dict[str, str] = {}
    for row in manifest:
        outcome[row["file"] or row["key"]] = row["reason"] or outcome.get(row["file"], "ok")
    missed = [key for key, wanted in expected.items() if outcome.get(key, "no row") not in ALLOWED[wanted]]
    missed += [key for key in outcome if key not in expected]
    in_branch = [row for row in failures if row["branch"] is not None]
    console.print(_table(f"{name}: files by expectation and outcome", expected, outcome))
    for key in missed:
        message = next((row["message"] for row in failures if row["key"].partition("#")[0] == key), "")
        console.print(f"[red]missed[/] {escape(key)}: expected {expected.get(key, 'nothing')}, became "
                      f"{outcome.get(key, 'no row')} {escape(message)}", soft_wrap=True)  # fmt: skip
    for row in in_branch:
        console.print(f"[red]branch[/] {row['branch']} of {escape(row['key'])}: {row['reason']}, "
                      f"{escape(row['message'])}", soft_wrap=True)  # fmt: skip
    seconds: defaultdict[str, float] = defaultdict(float)
    for row in metrics:
        seconds[row["key"]] += row["develop_s"]
    slowest = max(seconds, key=lambda key: seconds[key])
    console.print(
        f"{measured.seconds:.1f} s in all; slowest {escape(slowest)}, {seconds[slowest]:.1f} s in its steps; "
        f"{measured.result} metric rows; peak memory {measured.peak / 1e9:.2f} GB\n",
        soft_wrap=True,
    )
    return len(missed) + len(in_branch)


def _table(title: str, expected: dict[str, str], outcome: dict[str, str]) -> Table:
    counts = Counter((wanted, outcome.get(key, "no row")) for key, wanted in expected.items())
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("expected", style="bold")
    found = sorted({became for _, became in counts}, key=lambda became: (became != "ok", became))
    for became in found:
        table.add_column(became, justify="right")
    for wanted, allowed in ALLOWED.items():
        cells = [(counts[wanted, became], became in allowed) for became in found]
        table.add_row(wanted, *(("" if not n else f"[green]{n}[/]" if good else f"[red]{n}[/]") for n, good in cells))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--limit-s", type=float, default=1800, help="seconds a run may take before it counts as hanging"
    )
    options = parser.parse_args()
    console = Console()
    recipes: dict[str, str | dict[str, Any]] = {"default": "default", "cheap": CHEAP}
    missed = sum(check(console, options.folder, name, recipe, options.limit_s) for name, recipe in recipes.items())
    console.print("[bold red]missed[/]" if missed else "[bold green]all as expected[/]")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
