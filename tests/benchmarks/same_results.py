"""Whether two checkouts give the same results: python -m tests.benchmarks.same_results OTHER_CHECKOUT [PICTURES]

Runs the recipes `default` and `comparison` over Kodak, over odd files and over files of several pictures with this
checkout and with the other, each in processes of its own, and compares what they leave: tables row by row, times and
runs aside, pictures and streams byte by byte. Prints how much is equal and every kind of difference; exits 1 on any.
PICTURES is the most files of each set, all unless given. DARKROOM_DATASETS names the folder with `kodak` and `awkward`.
Since tables have version 5, the figures of a row are of its file: `--format png`, which keeps pixels as they are, has
the pictures of both written so, and then figures are compared that no encoder has touched.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from tests.frame_files import animation, moving, pages
from tests.processes import ROOT

RECIPES = ("default", "comparison")
SETS = ("kodak", "awkward", "frames")
TABLES = ("manifest", "metrics", "latents", "failures")
#: what says which row it is
IDENTITY = ("key", "frame", "branch", "model", "latent", "stage")
#: the command has moved between checkouts
COMMAND = """
try:
    from flows.command.cli import run
except ModuleNotFoundError:
    from flows.cli import run
run()
"""
#: the odd files fail for good reasons, and are all to be compared
OPTIONS = ("--device", "cpu", "--max-failure-rate", "1", "--no-prefect", "--json")


def main() -> None:
    """Compare, print, and exit with 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="another checkout of this repository")
    parser.add_argument("pictures", type=int, nargs="?", help="most files of each set")
    parser.add_argument("--format", help="of the pictures that are written, instead of the recipe's")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS, help="the sets to compare")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, choices=RECIPES, help="the recipes to compare")
    asked = parser.parse_args()
    datasets = os.environ.get("DARKROOM_DATASETS")
    if not datasets:
        parser.error("DARKROOM_DATASETS names no folder")
    same = True
    with tempfile.TemporaryDirectory() as folder:
        for name, source in sets(Path(datasets), Path(folder) / "sets", asked.pictures).items():
            for recipe in asked.recipes if name in asked.sets else ():
                outs = [Path(folder) / "new", Path(folder) / "other"]
                for checkout, out in zip((ROOT, asked.other.resolve()), outs, strict=True):
                    develop(checkout, source, out, recipe_of(checkout, recipe, Path(folder), asked.format))
                same &= report(f"{name}, {recipe}", *outs)
                for out in outs:
                    shutil.rmtree(out)
    sys.exit(0 if same else 1)


def sets(datasets: Path, folder: Path, most: int | None) -> dict[str, Path]:
    """The sets of pictures, each a folder of links or of files made here."""
    for name in ("kodak", "awkward"):
        (folder / name).mkdir(parents=True)
        for path in sorted(path for path in (datasets / name).iterdir() if path.is_file())[:most]:
            shutil.copy2(path, folder / name / path.name)
    (folder / "frames").mkdir()
    for path, data in {
        "turning.gif": animation(moving(6), "GIF"),
        "turning.webp": animation(moving(5), "WEBP"),
        "pages.tiff": pages(list(moving(4, 40, 48))),
        "grey16.tiff": pages(list(moving(3, channels=1, dtype="uint16"))),  # type: ignore[arg-type]
    }.items():
        (folder / "frames" / path).write_bytes(data)
    return {name: folder / name for name in SETS}


def recipe_of(checkout: Path, name: str, folder: Path, output: str | None) -> str:
    """Return the name of a recipe; with an output format the path of one that is a checkout's own but for that."""
    if not output:
        return name
    recipe = yaml.safe_load(next((checkout / "pipeline").rglob(f"{name}.yaml")).read_bytes())
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe | {"output": {"format": output}}))
    return str(path)


def develop(checkout: Path, source: Path, out: Path, recipe: str) -> None:
    """One run of a checkout's own code; ends this process with its words when it could not run."""
    command = [sys.executable, "-c", COMMAND, "develop", str(source), str(out), "--recipe", recipe, *OPTIONS]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    # 1 is a run whose pictures failed: its rows are compared
    if done.returncode not in (0, 1) or not list(out.glob("runs/*/_SUCCESS")):
        sys.exit(f"{checkout} ended with {done.returncode} on {source.name}, {recipe}: {done.stderr[-2000:]}")


def report(title: str, new: Path, other: Path) -> bool:
    """Print what two destinations share and where they differ; gives whether they are the same."""
    print(f"\n{title}")
    same = True
    for kind, (ours, theirs) in {
        **{table: (rows(new, table), rows(other, table)) for table in TABLES},
        **{kind: (files(new, kind), files(other, kind)) for kind in ("pictures", "streams")},
    }.items():
        differences = compare(ours, theirs)
        equal = len(ours.keys() & theirs.keys()) - len({who for found in differences.values() for who in found[0]})
        print(f"  {kind:10} {equal:7,} of {len(theirs):,} equal")
        for what, (_, example) in differences.items():
            print(f"    {what}: {example}")
        same &= not differences
    return same


def rows(destination: Path, table: str) -> dict[Any, dict[str, Any]]:
    """The rows of a table by what they are of, without times."""
    found = {}
    for part in sorted(destination.glob(f"tables/{table}/run=*/*.parquet")):
        for row in pq.ParquetFile(part).read().to_pylist():
            told = {name: value for name, value in row.items() if not name.endswith("_s")}
            found[tuple(str(row[name]) for name in IDENTITY if name in row)] = told
    return found


def files(destination: Path, kind: str) -> dict[Any, dict[str, Any]]:
    """Files below a folder of a destination: length and hash of each."""
    return {
        str(path.relative_to(destination)): {
            "length": path.stat().st_size,
            "bytes": hashlib.sha256(path.read_bytes()).hexdigest()[:12],
        }
        for path in sorted((destination / kind).rglob("*"))
        if path.is_file()
    }


def compare(ours: dict[Any, dict[str, Any]], theirs: dict[Any, dict[str, Any]]) -> dict[str, tuple[set[Any], str]]:
    """Every kind of difference: which entries have it, and the first of them in words."""
    found: dict[str, tuple[set[Any], str]] = {}
    if only := sorted(ours.keys() - theirs.keys(), key=str):
        found[f"only here: {len(only)}"] = (set(), str(only[0])[:200])
    if only := sorted(theirs.keys() - ours.keys(), key=str):
        found[f"only there: {len(only)}"] = (set(), str(only[0])[:200])
    columns = [set().union(*side.values()) for side in (ours, theirs)]
    if ours and theirs and (new := sorted(columns[0] ^ columns[1])):
        found[f"columns of one of them: {', '.join(new)}"] = (set(), "not compared")
    differing: dict[str, list[Any]] = defaultdict(list)
    for who in [who for who in ours if who in theirs]:
        # a column that one of them does not have is named once, and compared with nothing
        for name in ours[who].keys() & theirs[who].keys():
            # of a value that is no number (NaN) equal texts count, too
            if repr(ours[who].get(name)) != repr(theirs[who].get(name)):
                differing[name].append(who)
    for name, entries in sorted(differing.items()):
        first = entries[0]
        values = " here, ".join(repr(side[first].get(name))[:120] for side in (ours, theirs))
        found[f"{name} differs in {len(entries)}"] = (set(entries), f"{first}: {values} there")
    return found


if __name__ == "__main__":
    main()
