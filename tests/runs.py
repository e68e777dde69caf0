"""What the tests of whole runs share: small sources, a quick recipe, tables as other people's readers see them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cv2
import duckdb
import pyarrow.parquet as pq

from pipeline.destination.schemas import SCHEMAS
from pipeline.events import Event, Tell
from pipeline.requests.pictures import DevelopRequest
from pipeline.storage.store import list_objects, open_store, read
from tests.picture_files import smooth
from tests.processes import ROOT

QUICK: dict[str, Any] = {
    "branches": {"gamma": [{"step": "gamma"}], "jpeg": [{"step": "jpeg", "quality": 60}]},
    "output": {"format": "png"},
}
#: what may differ between two runs of the same work
TIMINGS = ("encode_s", "decode_s", "develop_s")


Told = TypeVar("Told", bound=Event)


def picture_file(number: int = 0, height: int = 40, width: int = 56) -> bytes:
    """A small PNG; every number gives another picture."""
    pixels = smooth(height, width, 3)
    pixels[:4, : 4 + number % 40] = (number % 256, number // 256, 99)
    return cv2.imencode(".png", pixels)[1].tobytes()


def fill(folder: Path, count: int, **size: int) -> Path:
    """A folder with `count` small pictures, half of them in a folder below."""
    for number in range(count):
        path = folder / ("" if number % 2 else "deep/er") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_file(number, **size))
    return folder


def request(source: object, destination: object, recipe: Any = QUICK, **changes: Any) -> DevelopRequest:
    settings: dict[str, Any] = {"shard_size": 3, "workers": 2, "device": "cpu"} | changes
    return DevelopRequest(source=str(source), destination=str(destination), recipe=recipe, **settings)


def only(kind: type[Told], take: Callable[[Told], object]) -> Tell:
    """Give what passes the events of one kind on, and no others."""

    def tell(event: Event) -> None:
        if isinstance(event, kind):
            take(event)

    return tell


def table(destination: Path, name: str, columns: str = "*") -> list[tuple]:
    """Rows of a table of all runs, by the Hive path, with DuckDB."""
    part = f"{destination}/tables/{name}/run=*/part-*.parquet"
    query = f"SELECT {columns} FROM read_parquet('{part}', hive_partitioning = true) ORDER BY ALL"
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


def tables(destination: Path) -> dict[str, list[tuple]]:
    """All rows of all tables, without the columns that only say how long something took."""
    return {
        name: table(destination, name, f"* EXCLUDE ({', '.join(TIMINGS)})" if name == "metrics" else "*")
        for name in SCHEMAS
    }


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file below a folder with its time and the hash of its bytes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in files
    }


def contents(folder: Path, *below: str) -> dict[str, str]:
    """Hashes of all files in some folders below the destination."""
    return {path: entry[1] for path, entry in snapshot(folder).items() if path.startswith(below)}


def commits(destination: Path) -> list[dict[str, Any]]:
    """What every committed shard of every run says."""
    return [json.loads(path.read_text()) for path in sorted(destination.glob("runs/*/shards/*.json"))]


def stored(destination: str) -> dict[str, Any]:
    """Every picture, stream and part of a table in any store: bytes, but of the metrics the rows without timings."""
    store, found = open_store(destination), dict[str, Any]()
    columns = [column for column in SCHEMAS["metrics"].names if column not in TIMINGS]
    for entry in list_objects(store, ["pictures/**", "streams/**", "tables/**"]):
        data = read(store, entry.key)
        metrics = entry.key.startswith("tables/metrics/")
        found[entry.key] = pq.read_table(io.BytesIO(data), columns=columns).to_pylist() if metrics else data
    return found


def python(code: str, *arguments: object, timeout: float = 120) -> str:
    """What a fresh Python process prints; its environment is that of the tests."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def darkroom(*arguments: object, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell would run it, wide enough that no line is wrapped."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"COLUMNS": "300"} | environment,
        check=False,
    )


def command(*arguments: object) -> list[str]:
    """The `darkroom` command beside the interpreter that runs the tests."""
    return [str(Path(sys.executable).with_name("darkroom")), *map(str, arguments)]
