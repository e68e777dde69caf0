"""The main job as a user runs it: a folder of pictures in a bucket, `darkroom develop` under Prefect, another bucket.

Starts a real S3 server, uploads the folder, runs the command twice, adds one picture, runs it again, and reads the
tables with DuckDB. The destination is copied to OUT, so that the report can be looked at.

python -m tests.benchmarks.bucket_to_bucket FOLDER OUT [--recipe comparison] [--limit N]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from rich.console import Console

from pipeline.storage.store import StorageOptions, Store, filesystem, list_objects, open_store, read, write
from tests.s3_server import environment_of, s3_server

out = Console(highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="comparison")
    parser.add_argument("--limit", type=int, help="only the first N pictures")
    options = parser.parse_args()
    paths = sorted(p for p in options.folder.rglob("*") if p.is_file() and p.suffix not in (".md", ".txt"))
    paths = paths[: options.limit]
    with tempfile.TemporaryDirectory() as scratch, s3_server(Path(scratch) / "s3") as server:
        os.environ |= environment_of(server) | {"PREFECT_HOME": f"{scratch}/prefect"}
        source, destination = buckets()
        for path in paths[:-1]:
            write(source, path.name, path.read_bytes())
        out.rule(f"{len(paths) - 1} pictures, all to do")
        develop(source, destination, options.recipe)
        out.rule("again: nothing to do")
        before = states(destination)
        develop(source, destination, options.recipe)
        out.print(f"objects changed by the second run: {len(before.items() ^ states(destination).items())}")
        out.rule("one picture more: one to do")
        write(source, paths[-1].name, paths[-1].read_bytes())
        develop(source, destination, options.recipe)
        for found in list_objects(destination):
            target = options.out / found.key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(read(destination, found.key))
    count(options.out)


def buckets() -> tuple[Store, Store]:
    """A fresh source and a fresh destination on the server of the environment."""
    stores = tuple(open_store(f"s3://{name}", StorageOptions.from_environment()) for name in ("pictures", "developed"))
    for store in stores:
        filesystem(store).call_s3("create_bucket", Bucket=store.root)
    return stores[0], stores[1]


def develop(source: Store, destination: Store, recipe: str) -> None:
    """Run the command, its output to the terminal; ends this program when it fails."""
    started = time.monotonic()
    command = [
        str(Path(sys.executable).with_name("darkroom")),
        "develop",
        source.url,
        destination.url,
        "--recipe",
        recipe,
    ]
    code = subprocess.run(command, check=False).returncode
    out.print(f"[dim]exit code {code}, {time.monotonic() - started:.1f} s with the start of Prefect[/]")
    if code:
        sys.exit(code)


def states(store: Store) -> dict[str, tuple[str, str]]:
    """Every object with its ETag and time."""
    return {found.key: (found.etag, str(found.modified)) for found in list_objects(store)}


def count(folder: Path) -> None:
    """Rows a table and branch, as DuckDB reads them."""
    for table in ("manifest", "metrics", "latents", "failures"):
        parts = f"read_parquet('{folder}/tables/{table}/*/*.parquet', hive_partitioning = true)"
        rows, keys, runs = duckdb.sql(
            f"SELECT count(*), count(DISTINCT key), count(DISTINCT run) FROM {parts}"
        ).fetchall()[0]
        out.print(f"{table:<9} {rows:>5} rows, {keys} keys, {runs} runs")
    out.print(
        duckdb.sql(
            f"""SELECT branch, count(*) AS pictures, count(DISTINCT key) AS keys, round(avg(psnr), 2) AS psnr,
            round(avg(ssim), 4) AS ssim, round(avg(ms_ssim), 4) AS ms_ssim, round(avg(bpp), 4) AS bpp
            FROM read_parquet('{folder}/tables/metrics/*/*.parquet', hive_partitioning = true)
            GROUP BY branch ORDER BY branch"""
        )
    )


if __name__ == "__main__":
    main()
