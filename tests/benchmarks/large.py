"""One picture of 100 megapixels through single branches, each in a process of its own: wall time and peak memory.

python -m tests.benchmarks.large [--megapixels 100] [--networks] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipeline.request import DevelopRequest
from pipeline.run import develop
from tests.benchmarks.measuring import in_fresh_process, peak_memory, photographs

CLASSICAL: dict[str, list[dict[str, Any]]] = {
    "clahe": [{"step": "clahe"}, {"step": "unsharp_mask"}],
    "balanced": [{"step": "grey_world"}, {"step": "contrast_stretch"}],
    "jpeg": [{"step": "jpeg", "quality": 75}],
}
NETWORKS: dict[str, list[dict[str, Any]]] = {"denoise": [{"step": "denoise"}], "autoencode": [{"step": "autoencode"}]}


def write_picture(folder: Path, megapixels: float) -> None:
    """A PNG and a JPEG of one picture, 4:3: a smooth photograph with the grain of a sensor."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    pixels = cv2.resize(photographs()[0], (height * 4 // 3, height), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(1).integers(-6, 7, pixels.shape, dtype=np.int8)
    pixels = cv2.add(pixels, grain, dtype=cv2.CV_8U)
    cv2.imwrite(str(folder / "large.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    cv2.imwrite(str(folder / "large.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])


def run(source: str, destination: str, name: str, steps: list[dict[str, Any]], file: str, measure: bool) -> None:
    """Develop one file by one branch; a failure is an error."""
    request = DevelopRequest(
        source=source,
        destination=destination,
        recipe={"name": name, "branches": {name: steps}, "output": {"format": "jpeg", "quality": 92}},
        include=(file,),
        device="cpu",
        deadline_s=36_000,
        measure=measure,
    )
    summary = develop(request)
    if summary.counts["rows"] != 1:
        raise RuntimeError(f"{name} of {file} failed: {summary.reasons}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--networks", action="store_true", help="denoise and autoencode too: minutes without a GPU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    branches = CLASSICAL | (NETWORKS if options.networks else {})
    cases = [(name, "large.jpg", measure) for name in CLASSICAL for measure in (False, True)]
    cases += [(name, "large.jpg", True) for name in NETWORKS if options.networks]
    cases.insert(0, ("clahe", "large.png", False))
    rows = []
    with tempfile.TemporaryDirectory(prefix="darkroom-large-") as place:
        source = Path(place) / "source"
        source.mkdir()
        in_fresh_process(write_picture, source, options.megapixels)
        for number, (name, file, measure) in enumerate(track(cases, "branches", transient=True)):
            destination = str(Path(place) / str(number))
            measured = in_fresh_process(run, str(source), destination, name, branches[name], file, measure)
            rows.append({"branch": name, "file": file, "metrics": measure}
                        | {"seconds": measured.seconds, "peak_bytes": measured.peak})  # fmt: skip
    table = Table(title=f"One picture of {options.megapixels:g} megapixels", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("branch", "file", "metrics"):
        table.add_column(heading, no_wrap=True)
    for heading in ("seconds", "peak memory, GB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        metrics = "on" if row["metrics"] else "off"
        table.add_row(row["branch"], row["file"], metrics, f"{row['seconds']:.1f}", f"{row['peak_bytes'] / 1e9:.2f}")
    console.print(table)
    imports = in_fresh_process(peak_memory).result
    console.print(f"The imports alone take {imports / 1e9:.2f} GB, most of it PyTorch.")
    if options.json:
        options.json.write_text(json.dumps({"megapixels": options.megapixels, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
