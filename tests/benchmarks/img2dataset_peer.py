"""Pictures a second beside img2dataset: fetched over HTTP from loopback, made smaller, written as JPEG files.

Both get the same bytes from one server, which answers plain GETs, as img2dataset asks, and S3's listing, for
`darkroom develop`, which reads objects rather than lists of URLs. Both run as commands, start included, in turns; both
bring the longest side to 256 by area means and write JPEG of quality 95, with tables of what they did; metrics are off.

PEER_VENV is a virtual environment with img2dataset: python -m venv PEER_VENV; PEER_VENV/bin/pip install img2dataset

python -m tests.benchmarks.img2dataset_peer PEER_VENV [--pictures 2000] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks.measuring import write_photographs

SIDE, QUALITY, BUCKET = 256, 95, "pictures"
RECIPE = {
    "name": "small",
    "branches": {"small": [{"step": "resize", "max_side": SIDE, "method": "area"}]},
    "output": {"format": "jpeg", "quality": QUALITY},
}
OURS, PEER = "darkroom develop", "img2dataset"
THREADS = 32


class Handler(BaseHTTPRequestHandler):
    """Files of a folder as `/pictures/NAME`, and the bucket's listing, which is all on one page."""

    protocol_version = "HTTP/1.1"
    # headers and body in one packet
    wbufsize = -1
    disable_nagle_algorithm = True
    files: dict[str, bytes]
    listing: bytes

    def do_GET(self) -> None:
        path, _, _query = self.path.partition("?")
        name = path.removeprefix(f"/{BUCKET}").strip("/")
        if name in self.files:
            data = self.files[name]
            self._answer(200, data, "image/jpeg", hashlib.md5(data, usedforsecurity=False).hexdigest())
        elif not name:
            self._answer(200, self.listing, "application/xml")
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")

    def _answer(self, status: int, body: bytes, kind: str, etag: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(folder: Path) -> None:
    """What the server's process does: say the port, then answer."""
    Handler.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    entries = "".join(
        f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{hashlib.md5(data, usedforsecurity=False).hexdigest()}&quot;</ETag><Size>{len(data)}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for name, data in Handler.files.items()
    )
    Handler.listing = (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{BUCKET}</Name><Prefix></Prefix><MaxKeys>100000</MaxKeys><IsTruncated>false</IsTruncated>{entries}"
        f"<KeyCount>{len(Handler.files)}</KeyCount></ListBucketResult>"
    ).encode()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


@contextmanager
def server(folder: Path) -> Any:
    """The server in a process of its own; gives its address."""
    command = [sys.executable, "-m", "tests.benchmarks.img2dataset_peer", str(folder), "--serve"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def run_ours(address: str, destination: Path, scratch: Path) -> int:
    """The command; how many pictures came out."""
    recipe = scratch / "recipe.yaml"
    recipe.write_text(json.dumps(RECIPE))
    command = [str(Path(sys.executable).with_name("darkroom")), "develop", f"s3://{BUCKET}", str(destination)]
    command += ["--recipe", str(recipe), "--no-measure", "--no-prefect", "--device", "cpu"]
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "DARKROOM_S3_"))}
    environment |= {"DARKROOM_S3_ENDPOINT": address, "DARKROOM_S3_ANONYMOUS": "true", "DARKROOM_S3_PATH_STYLE": "true"}
    _run(command, environment | {"DARKROOM_S3_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"})
    return len(list(destination.glob("pictures/small/*")))


def run_peer(python: Path, urls: Path, destination: Path) -> int:
    """The same by img2dataset; how many pictures came out."""
    code = "import img2dataset, json, sys; img2dataset.download(**json.loads(sys.argv[1]))"
    settings = {
        "url_list": str(urls),
        "output_folder": str(destination),
        "output_format": "files",
        "image_size": SIDE,
        "resize_mode": "keep_ratio_largest",
        "resize_only_if_bigger": True,
        "encode_quality": QUALITY,
        "processes_count": len(os.sched_getaffinity(0)),
        "thread_count": THREADS,
        "number_sample_per_shard": 1000,
        "enable_wandb": False,
    }
    _run([str(python), "-c", code, json.dumps(settings)], os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"})
    return len(list(destination.glob("*/*.jpg")))


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def measure(ways: dict[str, Callable[[Path], int]], scratch: Path, count: int, repeats: int) -> list[dict[str, float]]:
    """Seconds of both, a dictionary a turn; turns go forwards and backwards."""
    turns = []
    for turn in range(repeats):
        times = {}
        for name, way in list(ways.items())[:: -1 if turn % 2 else 1]:
            destination = scratch / f"{turn} {name.split()[0]}"
            os.sync()
            started = time.perf_counter()
            found = way(destination)
            times[name] = time.perf_counter() - started
            shutil.rmtree(destination)
            if found != count:
                raise SystemExit(f"{name} wrote {found} of {count} pictures")
        turns.append(times)
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer_venv", type=Path)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.peer_venv)
        return
    console = Console()
    with tempfile.TemporaryDirectory(prefix="darkroom-peer-") as name:
        scratch = Path(name)
        source = scratch / "source"
        source.mkdir()
        write_photographs(source, options.pictures, 1000, 750)
        size = sum(path.stat().st_size for path in source.iterdir()) / options.pictures
        console.print(f"{options.pictures} photographs of 1000 x 750, {size / 1000:.0f} kB each")
        with server(source) as address:
            names = sorted(path.name for path in source.iterdir())
            urllib.request.urlopen(f"{address}/{BUCKET}/{names[0]}").read()
            urls = scratch / "urls.txt"
            urls.write_text("\n".join(f"{address}/{BUCKET}/{one}" for one in names) + "\n")
            ways: dict[str, Callable[[Path], int]] = {
                PEER: lambda folder: run_peer(options.peer_venv / "bin" / "python", urls, folder),
                OURS: lambda folder: run_ours(address, folder, scratch),
            }
            turns = measure(ways, scratch, options.pictures, options.repeats)
    table = Table(title="Medians of turns", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("way", "pictures/s", "ratio", "least … most"):
        table.add_column(heading, justify="left" if heading == "way" else "right", no_wrap=True)
    rows = {}
    for way in (PEER, OURS):
        rate = statistics.median(options.pictures / turn[way] for turn in turns)
        ratios = [turn[PEER] / turn[way] for turn in turns]
        rows[way] = {"pictures_per_s": rate, "ratio": statistics.median(ratios), "ratios": ratios}
        spread = "" if way == PEER else f"{min(ratios):.2f} … {max(ratios):.2f}"
        table.add_row(way, f"{rate:.1f}", f"{rows[way]['ratio']:.2f}", spread)
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps({"pictures": options.pictures, "ways": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
