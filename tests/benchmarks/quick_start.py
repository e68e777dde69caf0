"""CPU seconds (user and system) and peak memory of commands that run no network: medians, this tree beside another.

    python -m tests.benchmarks.quick_start [OTHER_CHECKOUT] [--repeats 5]

Every command is a process of its own, the two trees take turns, and each has run every command once before, so that
its bytecode is compiled. OTHER_CHECKOUT is the folder of another checkout, such as a git worktree of an older commit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.processes import ROOT

#: `flows.command.cli` was `flows.cli` once
_RUN = """
import sys
try:
    from flows.command.cli import run
except ImportError:
    from flows.cli import run
sys.argv[0] = "darkroom"
run()
"""
_RECIPE = "name: small\nbranches:\n  small: [{step: resize, width: 160, height: 120}]\n"
#: in a process of its own: on Linux a child's peak memory begins with what its parent holds
_DRAW = """
import sys
import cv2, numpy as np
pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
cv2.imwrite(sys.argv[1], cv2.blur(pixels, (9, 9)))
"""
_STREAM = ROOT / "tests/models/codec/golden/version1_colour.drk"


def commands(folder: Path) -> dict[str, list[str]]:
    """The commands that are measured, by what they are called in the table, with their arguments."""
    source, out, recipe = (str(folder / name) for name in ("photos", "out", "small.yaml"))
    develop = ["develop", source, out, "--recipe", recipe, "--no-prefect", "--fresh"]
    return {
        "resize one picture": develop,
        "resize --dry-run": [*develop, "--dry-run"],
        "--help": ["--help"],
        "recipes": ["recipes"],
        "steps": ["steps"],
        "models": ["models"],
        "info": ["info", str(_STREAM)],
        "verify --quick": ["verify", out, "--quick", "--no-prefect"],
        "gc --dry-run": ["gc", out, "--dry-run", "--no-prefect"],
        "a typo": ["developp", source, out],
        "completion": ["completion", "bash"],
    }


def measured(tree: Path, arguments: list[str]) -> tuple[float, float]:
    """Run a command of a tree: CPU seconds and peak megabytes. Raises SystemExit where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-c", _RUN, *arguments]
        process = subprocess.Popen(command, cwd=tree, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 2):
            output.seek(0)
            raise SystemExit(f"{' '.join(arguments)} in {tree}:\n{output.read().decode(errors='replace')}")
    # macOS counts bytes, Linux kilobytes
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", nargs="?", type=Path, help="folder of another checkout, measured in turns with this")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each command that the medians are of")
    given = parser.parse_args()
    trees = [tree.resolve() for tree in (given.other, ROOT) if tree]
    with tempfile.TemporaryDirectory() as scratch:
        folders = {tree: Path(scratch) / str(number) for number, tree in enumerate(trees)}
        for folder in folders.values():
            (folder / "photos").mkdir(parents=True)
            subprocess.run([sys.executable, "-c", _DRAW, str(folder / "photos" / "a.png")], check=True)
            (folder / "small.yaml").write_text(_RECIPE)
        told = "".join(f"  {tree.name[:14]:>14} CPU s, MB" for tree in trees)
        print(f"{'':20}{told}")
        for name in commands(Path(scratch)):
            found: dict[Path, list[tuple[float, float]]] = {tree: [] for tree in trees}
            for turn in range(given.repeats + 1):
                for tree in trees:
                    one = measured(tree, commands(folders[tree])[name])
                    found[tree] += [one] if turn else []
            medians = [[statistics.median(figures) for figures in zip(*found[tree], strict=True)] for tree in trees]
            print(f"{name:20}" + "".join(f"  {cpu:16.2f} {memory:7.0f}" for cpu, memory in medians), flush=True)


if __name__ == "__main__":
    main()
