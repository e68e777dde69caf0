"""`darkroom info` as a shell runs it: what it prints of good files, and what it says of others."""

from __future__ import annotations

import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from flows.command.cli import main
from models.cards import list_cards
from models.codec.bitstream import Header, Stream, Tile, pack
from pipeline.storage.store import Store, write
from tests.runs import darkroom

PAYLOAD = bytes(4000)


def file(model_hash: bytes = b"0123456789abcdef", model: str = "elsewhere", alpha: bool = True) -> bytes:
    """A `.drk` file of 300 x 200 pixels in two tiles whose payloads are not decoded here."""
    header = Header(300, 200, False, 12, 392, 256, model, model_hash, icc=bytes(700), exif=bytes(30))
    plane = np.full((200, 300), 7, np.uint8) if alpha else None
    return pack(Stream(header, (Tile(1, PAYLOAD), Tile(2, b"")), plane))


def told(*files: object) -> Result:
    return CliRunner().invoke(main, ["info", *map(str, files)], env={"COLUMNS": "300"})


def rows(result: Result) -> dict[str, str]:
    """The cells of a printed table of two columns; a cell may go on in the lines below."""
    assert result.exit_code == 0, result.output
    cells: dict[str, str] = {}
    for line in result.stdout.splitlines():
        if line.startswith("│"):
            name, value = (cell.strip() for cell in line.strip("│").split("│"))
            name = name or list(cells)[-1]
            cells[name] = f"{cells.get(name, '')} {value}".strip()
    return cells


def test_the_table_says_what_the_file_says(tmp_path: Path) -> None:
    """Every fact of the header, and bytes that add up to the file."""
    data = file()
    (tmp_path / "a.drk").write_bytes(data)
    seen = rows(told(tmp_path / "a.drk"))
    expected = {
        "version": "1",
        "size": "300 x 200",
        "channels": "3 (RGB) and alpha",
        "bit depth": "12, decoded to 8",
        "quality": "24.5 of 1..64",
        "tiles": "2 x 1 of 256 pixels a side",
        "model": f"elsewhere@{b'0123456789abcdef'.hex()}",
    }
    assert seen | expected == seen
    assert seen["model is here"].startswith("no")
    assert seen["checksum of the head"].endswith("ok")
    counts = {name: int(value.split()[0].replace(",", "")) for name, value in seen.items() if value.endswith("bpp")}
    assert counts.pop("bytes") == len(data) == sum(counts.values())
    assert (counts["ICC profile"], counts["EXIF"], counts["payload"]) == (700, 30, 4000)
    assert f"{8 * len(data) / 60_000:.4f} bpp" in seen["bytes"]
    (tmp_path / "b.drk").write_bytes(file(alpha=False))
    assert rows(told(tmp_path / "b.drk"))["channels"] == "3 (RGB)"


def test_it_says_whether_the_model_is_installed(tmp_path: Path) -> None:
    """By the hash; a known name with another hash is another version."""
    card = list_cards()[0]
    (tmp_path / "a.drk").write_bytes(file(bytes.fromhex(card.sha256)[:16], card.name))
    assert rows(told(tmp_path / "a.drk"))["model is here"] == f"yes, {card.name}"
    (tmp_path / "b.drk").write_bytes(file(model=card.name))
    assert "another version" in rows(told(tmp_path / "b.drk"))["model is here"]


def test_paths_links_and_urls_lead_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative and absolute paths, a link out of the folder, file://, memory:// and a file inside another."""
    (tmp_path / "far").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "far" / "a.drk").write_bytes(file())
    (tmp_path / "here" / "link.drk").symlink_to(tmp_path / "far" / "a.drk")
    with zipfile.ZipFile(tmp_path / "box.zip", "w") as box:
        box.writestr("deep/a.drk", file())
    fsspec.filesystem("memory").pipe_file("/a.drk", file())
    monkeypatch.chdir(tmp_path / "here")
    absolute = tmp_path / "far" / "a.drk"
    box_url = f"zip://deep/a.drk::file://{tmp_path}/box.zip"
    for name in ("link.drk", "../far/a.drk", absolute, f"file://{absolute}", "memory://a.drk", box_url):
        result = told(name)
        assert rows(result)["size"] == "300 x 200"
        assert str(name) in result.stdout


def test_a_file_in_a_bucket_is_shown(s3_store: Store) -> None:
    write(s3_store, "2024/a.drk", file())
    assert rows(told(s3_store.url_of("2024/a.drk")))["size"] == "300 x 200"
    missing = told(s3_store.url_of("2024/b.drk"))
    assert (missing.exit_code, len(missing.stderr.splitlines())) == (3, 1)
    assert "b.drk" in missing.stderr


def test_a_wrong_file_is_one_line_and_code_1_and_the_others_are_shown(tmp_path: Path) -> None:
    """Cut, damaged, of another format, an early draft, a newer version; in the middle of good ones."""
    data = file()
    for name, bad, why in [
        ("cut.drk", data[:-8], "cut or damaged"),
        ("damaged.drk", data[:60] + b"?" + data[61:], "checksum"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(80), "not a .drk file"),
        ("draft.drk", b"DRK1" + bytes(80), "compress the picture again"),
        ("newer.drk", b"\x93DRK\x02" + bytes(80), "newer Darkroom"),
        ("empty [1].drk", b"", "not a .drk file"),
    ]:
        (tmp_path / name).write_bytes(bad)
        (tmp_path / "good.drk").write_bytes(data)
        result = told(tmp_path / "good.drk", tmp_path / name, tmp_path / "good.drk")
        assert result.exit_code == 1
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        assert str(tmp_path / name) in result.stderr
        assert why in result.stderr
        assert result.stdout.count("300 x 200") == 2


def test_a_file_that_is_not_there_is_one_line_and_code_3(tmp_path: Path) -> None:
    """As for every command; a folder is no file either."""
    for name in ("none.drk", "no/such/folder.drk", "."):
        result = told(tmp_path / name)
        assert (result.exit_code, len(result.stderr.strip().splitlines())) == (3, 1), result.stderr
    assert told().exit_code == 2


def test_a_picture_of_any_announced_size_is_shown(tmp_path: Path) -> None:
    """Above the limit of decoding; from a shell, with the exit code."""
    header = Header(2**32 - 1, 1024, True, 8, 16, 1024, "m", bytes(16))
    (tmp_path / "wide.drk").write_bytes(pack(Stream(header, (Tile(0, b""),) * header.columns)))
    done = darkroom("info", tmp_path / "wide.drk")
    assert (done.returncode, done.stderr) == (0, "")
    assert "4294967295 x 1024" in done.stdout
