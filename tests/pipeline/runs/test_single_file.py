"""One picture file to one stream and back, without a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from flows.command.cli import main
from models.codec.bitstream import read_header
from pipeline.errors import PictureError, RequestError
from pipeline.pictures.decode import decode
from pipeline.requests.compression import compression
from pipeline.requests.pictures import CompressRequest, DecompressRequest
from pipeline.runs.finish import develop
from pipeline.runs.single_file import FileReport, compress_file, decompress_file, is_file_to_file
from pipeline.storage.store import Store, read, write
from tests.codec_pictures import awkward_files, photograph
from tests.graphics import draw
from tests.picture_files import save


def compress(source: object, destination: object, **changes: Any) -> FileReport:
    settings: dict[str, Any] = {"device": "cpu"} | changes
    return compress_file(CompressRequest(source=str(source), destination=str(destination), **settings))


def decompress(source: object, destination: object, **changes: Any) -> FileReport:
    settings: dict[str, Any] = {"device": "cpu"} | changes
    return decompress_file(DecompressRequest(source=str(source), destination=str(destination), **settings))


def test_what_a_stream_holds_badly_is_said(tmp_path: Path) -> None:
    """A graphic is named with what holds it, and so is a stream larger than its source; of photographs nothing is."""
    code = draw("code, modules of 3", 96, 96)[:, :, 0]
    (tmp_path / "code.png").write_bytes(save(Image.fromarray(code).convert("1"), "PNG"))
    (tmp_path / "a.png").write_bytes(save(Image.fromarray(photograph(60, 70)), "PNG"))
    graphic, larger = compress(tmp_path / "code.png", tmp_path / "code.drk", quality=64).warnings
    assert graphic == "a graphic: 2 colours, which a learned codec blurs; the step webp_lossless keeps it exactly"
    assert "times as large as its source" in larger
    assert compress(tmp_path / "a.png", tmp_path / "a.drk").warnings == ()
    request = CompressRequest(source=str(tmp_path), destination=str(tmp_path / "out/"), device="cpu", quality=64)
    summary = develop(compression(request.model_copy(update={"suffixes": (".png",)})))
    assert summary.counts["warned"] == 1
    (row,) = summary.warnings
    assert (row["key"], row["branch"]) == ("code.png", "compressed")
    assert row["warning"] == f"autoencode: {graphic}; autoencode: {larger}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "photograph.png"
    path.write_bytes(save(Image.fromarray(photograph(150, 170)), "PNG"))
    return path


@pytest.mark.parametrize("key", ["alpha.png", "cmyk.jpg", "deep grey.png", "described.jpg", "one.png", "row.png"])
def test_a_file_becomes_the_stream_a_run_would_write(key: str, tmp_path: Path) -> None:
    """Byte for byte; and the picture comes back with its metadata; nothing else is left behind."""
    source, stream = tmp_path / "in" / key, tmp_path / "new/folder/a.drk"
    source.parent.mkdir()
    source.write_bytes(awkward_files()[key])
    told = compress(source, stream, quality=30)
    request = CompressRequest(source=str(source.parent), destination=str(tmp_path / "out"), device="cpu", quality=30)
    develop(compression(request))
    data = stream.read_bytes()
    assert data == (tmp_path / f"out/streams/compressed/{key}.drk").read_bytes()
    before = decode(source.read_bytes())
    height, width = before.pixels.shape[:2]
    assert (told.width, told.height, told.stream_bytes, told.quality) == (width, height, len(data), 30)
    assert told.bpp == 8 * len(data) / (width * height)
    decompress(stream, tmp_path / "back.tiff")
    after = decode((tmp_path / "back.tiff").read_bytes())
    assert after.pixels.shape[:2] == (height, width)
    assert after.metadata.icc == before.metadata.icc
    assert {path.name for path in stream.parent.iterdir()} == {"a.drk"}


def test_the_report_tells_what_the_picture_is_worth(file: Path, tmp_path: Path) -> None:
    """PSNR is that of the decompressed picture; a target is met; a decompression tells no PSNR."""
    told = compress(file, tmp_path / "a.drk", target_psnr=33)
    back = decompress(tmp_path / "a.drk", tmp_path / "a.png")
    error = np.mean((decode((tmp_path / "a.png").read_bytes()).pixels.astype(float) - photograph(150, 170)) ** 2)
    assert told.psnr == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)
    assert told.psnr is not None
    assert 33 <= told.psnr <= 33.05
    assert (back.psnr, back.quality, back.bpp, back.width) == (None, told.quality, told.bpp, 170)


def test_what_is_not_in_the_stream_is_said(tmp_path: Path) -> None:
    """Further frames, in the report and in a line; damage too, which `strict` refuses."""
    frames = [Image.fromarray(photograph(64, 80)), Image.new("RGB", (80, 64), "red")]
    (tmp_path / "a.gif").write_bytes(save(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    jpeg = save(Image.fromarray(photograph(200, 200)), "JPEG")
    (tmp_path / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2] + b"\xff\xd9")
    assert compress(tmp_path / "a.gif", tmp_path / "a.drk").omitted == "all but the first of 2 frames"
    assert "premature end" in str(compress(tmp_path / "half.jpg", tmp_path / "b.drk").damaged)
    with pytest.raises(PictureError, match=r"half\.jpg: .*premature end"):
        compress(tmp_path / "half.jpg", tmp_path / "c.drk", strict=True)
    assert not (tmp_path / "c.drk").exists()
    shown = CliRunner().invoke(
        main, ["compress", str(tmp_path / "a.gif"), str(tmp_path / "d.drk")], env={"COLUMNS": "200"}
    )
    assert "all but the first of 2 frames" in shown.stdout


def test_a_crop_is_that_part(file: Path, tmp_path: Path) -> None:
    """The format follows the name unless it is given."""
    compress(file, tmp_path / "a.drk")
    decompress(tmp_path / "a.drk", tmp_path / "whole.png")
    told = decompress(tmp_path / "a.drk", tmp_path / "part.bin", crop="20,30,40,50", format="png")
    whole, part = (decode((tmp_path / name).read_bytes()) for name in ("whole.png", "part.bin"))
    assert (told.width, told.height, part.metadata.format) == (40, 50, "png")
    assert np.abs(part.pixels.astype(int) - whole.pixels[30:80, 20:60]).max() <= 1
    with pytest.raises(PictureError, match=r"a\.drk: the crop 160,0,20,20 .* leaves the picture"):
        decompress(tmp_path / "a.drk", tmp_path / "b.png", crop="160,0,20,20")
    assert not (tmp_path / "b.png").exists()


def test_the_source_is_never_overwritten(file: Path, tmp_path: Path) -> None:
    """Under its own name, through a link, through a hard link, or relative."""
    before = file.read_bytes()
    (tmp_path / "link.png").symlink_to(file)
    os.link(file, tmp_path / "hard.png")
    for same in (file, tmp_path / "link.png", tmp_path / "hard.png", f"{tmp_path}/./photograph.png", f"file://{file}"):
        with pytest.raises(RequestError, match="is the source itself"):
            compress(file, same)
    assert file.read_bytes() == before


def test_destinations_that_are_no_file_are_refused(file: Path, tmp_path: Path) -> None:
    """A folder, a name with a slash at its end, a name that says no format."""
    for folder in (tmp_path, f"{tmp_path}/new/"):
        with pytest.raises(RequestError, match="name a file there"):
            compress(file, folder)
    compress(file, tmp_path / "a.drk")
    with pytest.raises(RequestError, match="give --format"):
        decompress(tmp_path / "a.drk", tmp_path / "a")


def test_bad_files_are_named_and_leave_nothing(file: Path, tmp_path: Path) -> None:
    """No picture, a stream where a picture belongs, a picture where a stream belongs, a damaged stream, a target."""
    compress(file, tmp_path / "a.drk")
    (tmp_path / "text.png").write_bytes(b"no picture at all")
    (tmp_path / "cut.drk").write_bytes((tmp_path / "a.drk").read_bytes()[:-8])
    for work, name, told in (
        (compress, "text.png", "no known picture format"),
        (compress, "a.drk", "a .drk stream already"),
        (decompress, "photograph.png", "no .drk stream"),
        (decompress, "cut.drk", "cut or damaged"),
    ):
        with pytest.raises(PictureError) as caught:
            work(tmp_path / name, tmp_path / ("out.drk" if work is compress else "out.png"))
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert told in str(caught.value)
    with pytest.raises(PictureError, match=r"photograph\.png: 0\.001 bits a pixel cannot be reached"):
        compress(file, tmp_path / "out.drk", target_bpp=0.001)
    with pytest.raises(PictureError, match="25,500 pixels; the limit is 100"):
        decompress(tmp_path / "a.drk", tmp_path / "out.png", pixel_limit=100)
    assert not list(tmp_path.glob("out.*"))


@pytest.mark.parametrize("name", ["b.jpg", "b", "b.drk.png"])
def test_a_stream_never_goes_by_another_name(name: str, file: Path, tmp_path: Path) -> None:
    """The ending is that of what is written; the message says a better name, and nothing is written."""
    with pytest.raises(RequestError, match=rf"{name}: what compress writes is a \.drk file; name it .*b(\.drk)?\.drk"):
        compress(file, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_ending_and_format_agree(file: Path, tmp_path: Path) -> None:
    """A picture's ending decides its format; where --format says another one neither is taken. Sizes are the file's."""
    compress(file, tmp_path / "a.drk")
    with pytest.raises(RequestError, match=r"a\.webp ends like webp, --format says png"):
        decompress(tmp_path / "a.drk", tmp_path / "a.webp", format="png")
    assert not (tmp_path / "a.webp").exists()
    told = decompress(tmp_path / "a.drk", tmp_path / "a.jpeg", format="jpeg")
    assert (told.bytes, told.stream_bytes) == (
        (tmp_path / "a.jpeg").stat().st_size,
        (tmp_path / "a.drk").stat().st_size,
    )


def test_the_ending_of_the_destination_decides_between_a_file_and_a_run(file: Path, tmp_path: Path) -> None:
    """A name with an ending is a file; one without, with a slash, or that of a folder is a folder."""
    (tmp_path / "v1.2").mkdir()
    folders = ("out", "out.drk/", str(tmp_path / "v1.2"), "s3://bucket", "s3://bucket/prefix")
    for destination in (*folders, "a.drk", "a.png", "v1.2", "s3://bucket/a.drk"):
        asked = CompressRequest(source=str(file), destination=destination)
        assert is_file_to_file(asked) == (destination not in folders), destination


def test_what_is_one_file(file: Path, s3_store: Store, bucket: str) -> None:
    """Files and objects are; folders, prefixes, buckets and what is not there are not."""
    write(s3_store, "a.png", file.read_bytes())
    one = [str(file), f"file://{file}", f"{s3_store.url}/a.png"]
    many = [str(file.parent), f"{file.parent}/", f"{file}x", s3_store.url, f"s3://{bucket}", f"{s3_store.url}/b.png"]
    for source in one + many:
        assert is_file_to_file(CompressRequest(source=source, destination="x.drk")) == (source in one), source
    assert not is_file_to_file(CompressRequest(source=str(file), destination="x.drk", source_block="archive"))


def test_objects_of_a_bucket_are_files_too(file: Path, s3_store: Store, tmp_path: Path) -> None:
    """From a bucket to a bucket and to a disk; the object itself is not overwritten."""
    write(s3_store, "a.png", file.read_bytes())
    compress(f"{s3_store.url}/a.png", f"{s3_store.url}/deep/a.drk")
    assert read_header(read(s3_store, "deep/a.drk")).header.width == 170
    decompress(f"{s3_store.url}/deep/a.drk", tmp_path / "a.webp")
    assert decode((tmp_path / "a.webp").read_bytes()).pixels.shape == (150, 170, 3)
    with pytest.raises(RequestError, match="is the source itself"):
        compress(f"{s3_store.url}/a.png", f"{s3_store.url}/a.png")
