"""What comes from strangers: object keys, pictures' own words, recipes and model files."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image, PngImagePlugin

from flows.command.cli import main
from models.errors import ModelError
from models.registry import load_model
from pipeline.destination.layout import picture_path
from pipeline.errors import RecipeError
from pipeline.requests.recipe import load_recipe
from pipeline.runs.finish import develop
from pipeline.storage.local import check_key
from pipeline.storage.store import Store, filesystem, list_objects, open_store, read
from tests.processes import ROOT
from tests.runs import picture_file, request

UNTOUCHED: dict[str, Any] = {"branches": {"same": []}, "output": {"format": "png"}}
#: names that lead elsewhere on some system; S3 takes them all
LEADING_OUT = ["../up.png", "a/../../up.png", "a/./b.png", "/etc/absolute.png", "a//b.png", "a.png/", "~/up.png"]
#: names that are refused on a disk
BACKSLASHES = ["x\\..\\up.png", "C:\\up.png"]
#: names that must stay what they are
STRANGE = [
    "new\nline.png", "escape\x1b[31m.png", "tab\t.png", "delete\x7f.png", "~root.png", "$HOME.png", "-rf.png",
    "*.png", "?.png", "%2e%2e%2fup.png", "a%00b.png", "run=..%2f.png", "'; DROP TABLE metrics;--.png", "A.png",
    "a.png", "c:up.png", "<script>alert(1)</script>.png", "\u212a.png", "K.png", "k.png", "\xe9.png",
    "e\u0301.png", "日本.png", "\uff0e\uff0e\uff0fup.png", "\u202egnp.exe.png", "zero\u200bwidth.png",
    "zerowidth.png", "CON.png", "nul", "aux.jpg", "trailing.png.", "trailing.png ", " leading.png",
]  # fmt: skip
TOO_LONG = ["x" * 240 + ".png", "long/" * 200 + "x.png"]


def put(store: Store, key: str, data: bytes) -> None:
    """Store an object past all our own checks, as somebody else's program would."""
    bucket, _, prefix = store.root.partition("/")
    filesystem(store).call_s3("put_object", Bucket=bucket, Key=f"{prefix}/{key}", Body=data)


def rows(destination: Store, table: str) -> list[dict[str, Any]]:
    parts = [entry.key for entry in list_objects(destination, [f"tables/{table}/**"])]
    return [row for part in parts for row in pq.read_table(io.BytesIO(read(destination, part))).to_pylist()]


@pytest.mark.parametrize("kind", ["s3", "local"])
def test_no_key_leads_out_of_the_destination_or_into_another(
    kind: str, s3_store: Store, bucket: str, tmp_path: Path
) -> None:
    """Each is one object of its own with its own pixels, or a failure row; nothing is written anywhere else."""
    keys = [*LEADING_OUT, *BACKSLASHES, *STRANGE, *TOO_LONG]
    pictures = {key: picture_file(number, 8, 64) for number, key in enumerate(keys)}
    for key, data in pictures.items():
        put(s3_store, key, data)
    inside = tmp_path / "around" / "out"
    destination = open_store(f"s3://{bucket}/around/out" if kind == "s3" else inside)
    everything = open_store(f"s3://{bucket}")
    before = {entry.key for entry in list_objects(everything)}
    summary = develop(
        request(s3_store.url, destination.url, UNTOUCHED, shard_size=100, measure=False, max_failure_rate=1)
    )

    manifest = rows(destination, "manifest")
    assert sorted(row["key"] for row in manifest) == sorted(keys)
    failed = {row["key"]: row["reason"] for row in rows(destination, "failures")}
    assert summary.counts["good"] + summary.counts["failed"] == len(keys)
    written = {entry.key for entry in list_objects(destination, ["pictures/**"])}
    assert written == {picture_path("same", key, "png") for key in keys if key not in failed}
    for key in set(keys) - set(failed):
        stored = read(destination, picture_path("same", key, "png"))
        developed = cv2.imdecode(np.frombuffer(stored, np.uint8), -1)
        assert (developed == cv2.imdecode(np.frombuffer(pictures[key], np.uint8), -1)).all(), key
    assert set(failed) <= {*BACKSLASHES, *TOO_LONG}
    if kind == "local":
        assert set(BACKSLASHES) <= set(failed)
        found = [path for path in tmp_path.rglob("*") if path.is_file() and inside not in path.parents]
        assert found == []
    after = {entry.key for entry in list_objects(everything)}
    assert all(key.startswith("around/out/") for key in after - before)


def test_local_names_that_are_no_text_are_failures(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, line ends and backslashes in names of files: counted, never somewhere else."""
    source = tmp_path / "source"
    source.mkdir()
    names = [b"good.png", b"line\nend.png", b"latin-\xe9.png", b"back\\slash.png"]
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(source), name), "wb") as file:
            file.write(picture_file(number, 8, 8))
    summary = develop(request(source, tmp_path / "out", UNTOUCHED, measure=False, max_failure_rate=1))
    assert (summary.counts["objects"], summary.reasons) == (4, {"read_error": 1, "write_error": 1})
    written = {path.name for path in (tmp_path / "out/pictures").rglob("*.png")}
    assert written == {"good.png.png", "line\nend.png.png"}


@pytest.mark.parametrize(
    "key", ["CON", "c:up", "a:b.png", "nul.png", "a/Aux.txt", "com1", "a./b.png", "a /b.png", "a.png."]
)
def test_names_that_windows_gives_to_devices_are_refused_there(key: str) -> None:
    """Writing to NUL would lose the picture without a word; elsewhere these are names like others."""
    check_key(f"a/{key}", for_writing=True, windows=False)
    with pytest.raises(Exception, match="refused as the name of a file"):
        check_key(f"a/{key}", for_writing=True, windows=True)


def hostile_png(text: str) -> bytes:
    """A picture that says something in every field it has."""
    image = Image.fromarray(np.full((16, 16, 3), 99, np.uint8))
    told, exif, buffer = PngImagePlugin.PngInfo(), image.getexif(), io.BytesIO()
    told.add_text("Title", text)
    told.add_itxt("XML:com.adobe.xmp", text)
    exif[0x010E], exif[0x013B] = text, text
    image.save(buffer, "png", pnginfo=told, exif=exif)
    return buffer.getvalue()


def test_no_word_of_a_source_runs_in_a_report(browser: Any, s3_store: Store, tmp_path: Path) -> None:
    """Keys, EXIF, recipe names and messages with markup in them: the page shows them, and none of them acts."""
    act = "document.title='taken'"
    evil = [f"<script>{act}</script>.png", f'"><img src=x onerror="{act}">.png', f"</script><svg onload={act}>.png"]
    for key in evil:
        put(s3_store, key, hostile_png(evil[0]))
    put(s3_store, f"<svg onload={act}>/broken.png", b"\x89PNG\r\n\x1a\n" + evil[1].encode())
    put(s3_store, f"javascript:{act}.png", hostile_png(f"{{{{7*7}}}}{{% raw %}}<script>{act}</script>"))
    recipe = UNTOUCHED | {"name": f"</title><script>{act}</script>"}
    changes: dict[str, Any] = {"max_failure_rate": 0.9, "shard_size": 2}
    summary = develop(request(s3_store.url, tmp_path / "out", recipe, **changes))
    assert summary.counts["failed"] == 1
    browser.get(Path(str(summary.report)).as_uri())
    browser.get_log("browser")
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.title != "taken"
    assert browser.execute_script("return [...document.scripts].filter(one => one.text.includes('taken')).length") == 0
    acting = "[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on')))"
    assert browser.execute_script(f"return {acting}.length") == 0
    assert "onerror" in browser.find_element("tag name", "body").get_attribute("textContent")


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {0}']",
        "branches: {{a: !!python/object/new:subprocess.Popen [['touch', '{0}']]}}",
        "branches: !!python/name:os.system",
        "&a [*a, *a]",
        "branches: &b {{x: *b}}",
    ],
)
def test_recipes_cannot_run_code(text: str, tmp_path: Path) -> None:
    """YAML tags that make objects, and documents that contain themselves, are messages."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text.format(tmp_path / "ran"))
    with pytest.raises(RecipeError):
        load_recipe(str(recipe))
    assert not (tmp_path / "ran").exists()


def pickled(path: Path) -> bytes:
    """What runs code when it is unpickled."""
    return b"cos\nsystem\n(S'touch " + str(path).encode() + b"'\ntR."


LYING: dict[str, Callable[[Path], bytes]] = {
    "pickle": pickled,
    "a header longer than the file": lambda path: struct.pack("<Q", 1 << 40) + b"{}",
    "a header that is no JSON": lambda path: struct.pack("<Q", 8) + b"{" * 8,
    "data beyond the end": lambda path: safetensors(
        {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    ),
    "overlapping data": lambda path: (
        safetensors({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}) + bytes(4)
    ),
    "nothing": lambda path: b"",
}


def safetensors(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize("kind", LYING)
def test_model_files_cannot_run_code_or_lie(kind: str, tmp_path: Path) -> None:
    """Pickles and files whose headers promise what is not there are refused, by name."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(LYING[kind](tmp_path / "ran"))
    card = next((ROOT / "models/weights").glob("*.json"))
    path.with_suffix(".json").write_bytes(card.read_bytes())
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_model(str(path))
    assert not (tmp_path / "ran").exists()


def test_errors_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences in names reach the terminal as text."""
    arguments = ["develop", str(tmp_path / "none\x1b]0;taken\x07"), str(tmp_path / "out"), "--no-prefect"]
    done = CliRunner().invoke(main, arguments, env={"COLUMNS": "300"})
    assert done.exit_code == 3
    assert "\x1b" not in done.stderr
    assert "\\x1b]0;taken\\x07" in done.stderr
