"""Folders of pictures from bucket to bucket, compressed and decompressed, each with a kill -9 and a resume in between.

Starts a real S3 server, uploads every folder to a bucket of its own, runs `darkroom compress` and `darkroom decompress`
with all their files, kills each in the middle, runs the same command again, and compares what came back with the
pictures it was made from. The exit code is 1 when rows do not add up or a compressed picture did not come back.

python -m tests.benchmarks.compress_sets FOLDER... [--quality 24] [--limit N] [--prefect] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.pictures.decode import decode
from pipeline.pictures.metrics import psnr
from pipeline.pictures.picture import to_8bit
from pipeline.requests.compression import COMPRESSED, DECOMPRESSED
from pipeline.storage.store import StorageOptions, Store, filesystem, list_objects, open_store, read, write
from tests.s3_server import environment_of, s3_server

_DARKROOM = str(Path(sys.executable).with_name("darkroom"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--quality", type=float, default=24)
    parser.add_argument("--limit", type=int, help="only the first N files of every folder")
    parser.add_argument("--prefect", action="store_true", help="run the commands as Prefect flows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, s3_server(Path(scratch) / "s3") as server:
        os.environ |= environment_of(server) | {"PREFECT_HOME": f"{scratch}/prefect"}
        common = ["--max-failure-rate", "1"] + ([] if options.prefect else ["--no-prefect"])
        rows = [
            measure(folder, f"set-{number}", options.quality, options.limit, common)
            for number, folder in enumerate(options.folders)
        ]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(1 if any(row["faults"] for row in rows) else 0)


def measure(folder: Path, name: str, quality: float, limit: int | None, common: list[str]) -> dict[str, Any]:
    """One folder there and back again; everything worth telling, and what is wrong under `faults`."""
    source, streams, pictures = (make_bucket(f"{name}-{what}") for what in ("in", "drk", "out"))
    paths = sorted(path for path in folder.rglob("*") if path.is_file())[:limit]
    for path in paths:
        write(source, path.relative_to(folder).as_posix(), path.read_bytes())
    common = [*common, "--shard-size", str(max(1, len(paths) // 6))]
    row: dict[str, Any] = {"set": folder.name, "files": len(paths)}
    compress = ["compress", source.url, streams.url, "--quality", f"{quality:g}", *common]
    row |= {f"compress_{fact}": value for fact, value in run_with_kill(compress, streams, len(paths)).items()}
    metrics, failures = table_of(streams, "metrics"), table_of(streams, "failures")
    below = open_store(f"{streams.url}/streams/{COMPRESSED}", streams.options)
    decompress = ["decompress", below.url, pictures.url, *common]
    row |= {f"decompress_{fact}": value for fact, value in run_with_kill(decompress, pictures, len(metrics)).items()}
    row |= {"compressed": len(metrics), "failed": len(failures)}
    row |= {"reasons": dict(sorted(Counter(failure["reason"] for failure in failures).items()))}
    row |= {fact: mean([each[fact] for each in metrics]) for fact in ("bpp", "psnr", "ms_ssim")}
    compared = compare(source, pictures, [each["key"] for each in metrics])
    row |= {"back": len(compared), "psnr_back": mean(list(compared.values()))}
    row["faults"] = faults(row, streams, pictures)
    return row


def run_with_kill(arguments: list[str], destination: Store, most: int) -> dict[str, Any]:
    """Start a command, kill it when it has written half its objects, run it again; wall time of both, how many."""
    started = time.monotonic()
    killed_at = 0
    with subprocess.Popen([_DARKROOM, *arguments], start_new_session=True) as process:
        while process.poll() is None:
            written = sum(1 for found in list_objects(destination) if found.key.startswith(("streams/", "pictures/")))
            if 2 * written >= most:
                os.killpg(process.pid, signal.SIGKILL)
                killed_at = written
                break
            time.sleep(0.2)
    code = subprocess.run([_DARKROOM, *arguments], check=False).returncode
    return {"killed_at": killed_at, "seconds": round(time.monotonic() - started, 1), "exit_code": code}


def compare(source: Store, pictures: Store, keys: list[str]) -> dict[str, float]:
    """PSNR of every picture that came back against the one that went, by key; read from the buckets."""
    found = {}
    there = {entry.key for entry in list_objects(pictures)}
    for key in keys:
        path = f"pictures/{DECOMPRESSED}/{key}.png"
        if path in there:
            before, after = decode(read(source, key), key), decode(read(pictures, path))
            if before.pixels.shape == after.pixels.shape:
                found[key] = psnr(after.colour, to_8bit(before.colour))
    return found


def faults(row: dict[str, Any], streams: Store, pictures: Store) -> list[str]:
    """What should not be: missing rows, rows twice, pictures that did not come back, other colours than measured."""
    told = []
    for name, store, expected in (("compress", streams, row["files"]), ("decompress", pictures, row["compressed"])):
        keys = [each["key"] for each in table_of(store, "manifest")]
        if len(keys) != expected or len(set(keys)) != len(keys):
            told.append(f"{name}: {len(keys)} manifest rows for {expected} objects")
        if row[f"{name}_exit_code"]:
            told.append(f"{name}: exit code {row[f'{name}_exit_code']}")
    if row["compressed"] + row["failed"] != row["files"]:
        told.append(f"{row['compressed']} + {row['failed']} rows for {row['files']} files")
    if row["back"] != row["compressed"] or abs((row["psnr_back"] or 0) - (row["psnr"] or 0)) > 1e-3:
        told.append(f"{row['back']} pictures of {row['psnr_back']} dB came back")
    return told


def table_of(store: Store, name: str) -> list[dict[str, Any]]:
    """All rows of a table, without the latents' long columns."""
    parts = [entry.key for entry in list_objects(store, [f"tables/{name}/**"])]
    tables = [pq.read_table(io.BytesIO(read(store, part))) for part in parts]
    return pa.concat_tables(tables).to_pylist() if tables else []


def make_bucket(name: str) -> Store:
    store = open_store(f"s3://{name}", StorageOptions.from_environment())
    filesystem(store).call_s3("create_bucket", Bucket=store.root)
    return store


def mean(values: list[Any]) -> float | None:
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None


def show(rows: list[dict[str, Any]]) -> None:
    """The rows for people."""
    table = Table(title="compressed and decompressed, each killed once", title_justify="left", box=box.SIMPLE_HEAD)
    headings = ("set", "files", "compressed", "failed", "back", "bpp", "PSNR", "MS-SSIM", "compress s", "decompress s")
    for heading in (*headings, "killed at"):
        table.add_column(heading, justify="left" if heading == "set" else "right", no_wrap=True)
    for row in rows:
        means = ("—" if row[n] is None else f"{row[n]:.{d}f}" for n, d in (("bpp", 4), ("psnr", 2), ("ms_ssim", 4)))
        counts = (str(row[name]) for name in ("files", "compressed", "failed", "back"))
        times = (f"{row[f'{work}_seconds']:.1f}" for work in ("compress", "decompress"))
        table.add_row(
            row["set"], *counts, *means, *times, f"{row['compress_killed_at']}, {row['decompress_killed_at']}"
        )
    console = Console(width=140)
    console.print(table)
    for row in rows:
        for reason, count in row["reasons"].items():
            console.print(f"{row['set']}: {count} {reason}")
        for fault in row["faults"]:
            console.print(f"[bold red]{row['set']}: {fault}[/]")


if __name__ == "__main__":
    main()
