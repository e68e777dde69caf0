"""A run as Hugging Face datasets: python examples/hugging_face.py RUN BRANCH, a folder that `darkroom develop` wrote.

Needs `pip install datasets`. Nothing is fetched from anywhere.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__" and len(sys.argv) != 3:
    print(__doc__.splitlines()[0], file=sys.stderr)
    sys.exit(2)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import datasets
import pyarrow.dataset as ds

import darkroom


def pictures(run: Path, branch: str) -> datasets.Dataset:
    """The developed pictures of a branch with what was measured of them; a picture is decoded when it is asked for."""
    metrics = darkroom.open_destination(run).table("metrics")
    rows = metrics.to_table(columns=["key", "psnr", "bytes"], filter=ds.field("branch") == branch).to_pylist()
    folder = run / "pictures" / branch
    files = {str(path.relative_to(folder).with_suffix("")): str(path) for path in folder.rglob("*") if path.is_file()}
    kept = [row | {"image": files[row["key"]]} for row in rows if row["key"] in files]
    return datasets.Dataset.from_list(kept).cast_column("image", datasets.Image())


def latents(run: Path) -> datasets.Dataset:
    """What models say of the pictures: for runs of the recipe `represent`, vectors, ready for PyTorch."""
    said = darkroom.open_destination(run).table("latents").to_table(columns=["key", "model", "latent", "scale"])
    rows = datasets.Dataset.from_list(said.to_pylist())
    vectors = rows.map(lambda row: {"vector": [number * row["scale"][0] for number in row["latent"]]})
    return vectors.select_columns(["key", "model", "vector"]).with_format("torch", columns=["vector"])


if __name__ == "__main__":
    shown = pictures(Path(sys.argv[1]), sys.argv[2])
    print(len(shown), "pictures, the first one of", shown[0]["image"].size, "pixels and", shown[0]["psnr"], "dB")
    known = latents(Path(sys.argv[1]))
    print(len(known), "vectors of", len(known[0]["vector"]), "numbers")
