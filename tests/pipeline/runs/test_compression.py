"""Sets of pictures to streams and back: every kind of picture, targets, crops, models, buckets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.codec.bitstream import read_header, unpack
from models.codec.frozen import FrozenCodec
from models.errors import ModelError
from models.inference import apply_in_batches
from models.registry import load_model, save_model
from pipeline.destination.run_record import Summary
from pipeline.networks.streams import decode_stream
from pipeline.pictures.decode import decode
from pipeline.pictures.picture import Picture, to_8bit
from pipeline.requests.compression import compression, decompression
from pipeline.requests.pictures import CompressRequest, DecompressRequest
from pipeline.runs.finish import develop
from pipeline.storage.store import Store, list_objects, open_store, read, write
from tests.codec_pictures import awkward_files, photograph
from tests.picture_files import save
from tests.runs import contents, snapshot, table

SETTINGS: dict[str, Any] = {"device": "cpu", "workers": 2, "shard_size": 5}
APPLY = partial(apply_in_batches, device="cpu", batch=1)


def compress(source: object, destination: object, **changes: Any) -> Summary:
    request = CompressRequest(source=str(source), destination=str(destination), **(SETTINGS | changes))
    return develop(compression(request))


def decompress(source: object, destination: object, **changes: Any) -> Summary:
    request = DecompressRequest(source=str(source), destination=str(destination), **(SETTINGS | changes))
    return develop(decompression(request))


def picture(path: Path) -> Picture:
    return decode(path.read_bytes(), path.name)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every awkward picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for key, data in awkward_files().items():
        (folder / key).parent.mkdir(exist_ok=True)
        (folder / key).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def compressed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder compressed."""
    out = tmp_path_factory.mktemp("compressed")
    assert compress(pictures, out, quality=40.5).counts["good"] == len(awkward_files())
    return out


@pytest.fixture(scope="module")
def decompressed(compressed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """And decompressed to PNG."""
    out = tmp_path_factory.mktemp("decompressed")
    assert decompress(compressed / "streams/compressed", out).status == "complete"
    return out


@pytest.mark.parametrize("key", awkward_files())
def test_every_kind_of_picture_comes_back(key: str, pictures: Path, compressed: Path, decompressed: Path) -> None:
    """Size, channels, bit depth and colours come back; alpha, ICC and EXIF exactly (alpha in 8 bits)."""
    before = picture(pictures / key)
    header = read_header((compressed / f"streams/compressed/{key}.drk").read_bytes()).header
    after = picture(decompressed / f"pictures/decompressed/{key}.png")
    assert (header.width, header.height, header.quality) == (before.pixels.shape[1], before.pixels.shape[0], 648)
    assert header.bit_depth == before.metadata.bit_depth
    assert (header.icc or None, header.exif or None) == (before.metadata.icc, before.metadata.exif)
    assert (after.metadata.icc, after.metadata.exif) == (before.metadata.icc, before.metadata.exif)
    assert after.pixels.shape == before.pixels.shape
    assert after.pixels.dtype == np.uint8
    if before.alpha is not None:
        assert after.alpha is not None
        np.testing.assert_array_equal(after.alpha, to_8bit(before.alpha))
    difference = np.abs(after.colour.astype(int) - to_8bit(before.colour))
    assert difference.mean() < 8


def test_what_was_measured_is_what_the_stream_gives(pictures: Path, compressed: Path, decompressed: Path) -> None:
    """PSNR and bytes in the metrics table are those of the decompressed picture and of the stream."""
    rows = table(compressed, "metrics", "key, psnr, bytes, bpp, width, height")
    assert {row[0] for row in rows} == set(awkward_files())
    for key, psnr, size, bpp, width, height in rows:
        before, after = picture(pictures / key), picture(decompressed / f"pictures/decompressed/{key}.png")
        error = seen_error(after.pixels, to_8bit(before.pixels))
        assert psnr == pytest.approx(100 if error == 0 else min(100, 10 * np.log10(255**2 / error)), abs=1e-3)
        assert (compressed / f"streams/compressed/{key}.drk").stat().st_size == size
        assert bpp == 8 * size / (width * height)
    assert contents(compressed, "pictures/") == {}


def seen_error(pixels: np.ndarray, reference: np.ndarray) -> float:
    """The mean squared error, with alpha over black and over white, where pixels count by their alpha."""
    if pixels.shape[2] in (1, 3):
        return float(np.mean((pixels.astype(float) - reference) ** 2))
    alphas = [one[:, :, -1:] / 255 for one in (pixels, reference)]
    grounds = [
        [
            np.rint(one[:, :, :-1] * alpha + level * (1 - alpha))
            for one, alpha in zip((pixels, reference), alphas, strict=True)
        ]
        for level in (0, 255)
    ]
    errors = np.mean([(one - other) ** 2 for one, other in grounds], axis=0).mean(2)
    return float(np.average(errors, weights=np.maximum(*alphas)[:, :, 0]))


def test_the_manifest_of_streams_tells_their_pictures(decompressed: Path) -> None:
    """Format drk, the bit depth of the original, channels and colour model."""
    rows = {row[0]: row[1:] for row in table(decompressed, "manifest", "key, format, mode, channels, bit_depth")}
    assert rows["deep.png"] == ("drk", "rgb", 3, 16)
    assert rows["grey alpha.png"] == ("drk", "grey+alpha", 2, 8)
    assert rows["grey.png"] == ("drk", "grey", 1, 8)
    assert rows["palette.png"][:3] == ("drk", "rgb+alpha", 4)
    assert {row[0] for row in rows.values()} == {"drk"}


def test_the_same_command_again_does_nothing(pictures: Path, compressed: Path, decompressed: Path) -> None:
    """Neither a set of pictures nor a set of streams is done twice."""
    before = snapshot(compressed), snapshot(decompressed)
    assert compress(pictures, compressed, quality=40.5).status == "nothing_to_do"
    assert decompress(compressed / "streams/compressed", decompressed).status == "nothing_to_do"
    assert (snapshot(compressed), snapshot(decompressed)) == before


def test_only_streams_are_taken(compressed: Path, tmp_path: Path) -> None:
    """Below the destination of a compression lie reports and tables too; none of them is a failure."""
    summary = decompress(compressed, tmp_path / "out")
    assert (summary.counts["objects"], summary.counts["failed"]) == (len(awkward_files()), 0)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three natural pictures of at least 256 x 256."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "chelsea", "coffee"):
        (folder / f"{name}.png").write_bytes(save(Image.fromarray(photograph(256, 270, name)), "PNG"))
    (folder / "grey.png").write_bytes(save(Image.fromarray(photograph(300, 256, "camera")[:, :, 0]), "PNG"))
    return folder


@pytest.mark.parametrize("target", [0.4, 1.0])
def test_sizes_end_within_two_percent_below_the_target(target: float, photographs: Path, tmp_path: Path) -> None:
    """Whole files, headers included, on natural pictures of at least 256 x 256."""
    assert compress(photographs, tmp_path / "out", target_bpp=target).status == "complete"
    for key, bpp in table(tmp_path / "out", "metrics", "key, bpp"):
        assert 0.98 * target <= bpp <= target, key


@pytest.mark.parametrize("target", [30.0, 36.0])
def test_psnr_ends_within_a_twentieth_above_the_target(target: float, photographs: Path, tmp_path: Path) -> None:
    """All colours together, on what the stream decodes to."""
    few = ("chelsea.png", "grey.png")
    assert compress(photographs, tmp_path / "out", target_psnr=target, include=few).status == "complete"
    for key, psnr in table(tmp_path / "out", "metrics", "key, psnr"):
        assert target <= psnr <= target + 0.05, key


def test_a_target_that_cannot_be_met_fails_that_picture_alone(tmp_path: Path) -> None:
    """The message says what can be had; other pictures are compressed."""
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    (tmp_path / "in/noise.png").write_bytes(save(Image.fromarray(noise), "PNG"))
    (tmp_path / "in/flat.png").write_bytes(save(Image.new("RGB", (256, 256), (90, 120, 60)), "PNG"))
    summary = compress(tmp_path / "in", tmp_path / "out", target_bpp=0.2)
    assert (summary.counts["rows"], summary.reasons) == (1, {"step_failed": 1})
    ((key, message),) = table(tmp_path / "out", "failures", "key, message")
    assert key == "noise.png"
    assert "0.2 bits a pixel cannot be reached: the smallest file" in message


def test_a_crop_is_that_part_of_the_whole(tmp_path: Path) -> None:
    """Of a picture of several tiles, wherever the crop lies; to one level, for windows may differ."""
    whole = np.tile(photograph(300, 300), (4, 4, 1))[:1060, :1040]
    whole = np.dstack([whole, np.arange(1060 * 1040).reshape(1060, 1040) % 251]).astype(np.uint8)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(save(Image.fromarray(whole), "PNG"))
    compress(tmp_path / "in", tmp_path / "drk", quality=20)
    data = (tmp_path / "drk/streams/compressed/a.png.drk").read_bytes()
    decoded = decode_stream(data, "a", APPLY).pixels
    for left, top, width, height in ((0, 0, 40, 30), (980, 990, 60, 70), (1039, 1059, 1, 1), (37, 500, 211, 9)):
        out = tmp_path / f"{left}-{top}"
        decompress(tmp_path / "drk/streams", out, crop=f"{left},{top},{width},{height}")
        part = picture(out / "pictures/decompressed/compressed/a.png.png").pixels.astype(int)
        expected = decoded[top : top + height, left : left + width]
        assert part.shape == expected.shape
        assert np.abs(part - expected).max() <= 1
        np.testing.assert_array_equal(part[:, :, 3], expected[:, :, 3])
        assert table(out, "manifest", "width, height") == [(width, height)]


def test_a_crop_reads_only_the_tiles_around_it(tmp_path: Path) -> None:
    """Damage in another tile does not matter to it, and stops the whole picture."""
    whole = np.tile(photograph(300, 300), (8, 1, 1))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(save(Image.fromarray(whole), "PNG"))
    compress(tmp_path / "in", tmp_path / "drk")
    path = tmp_path / "drk/streams/compressed/a.png.drk"
    data = bytearray(path.read_bytes())
    last = len(unpack(bytes(data)).tiles[-1].payload)
    data[len(data) - last // 2] ^= 0x55
    path.write_bytes(data)
    assert decompress(tmp_path / "drk/streams", tmp_path / "part", crop="10,10,50,50").status == "complete"
    assert decompress(tmp_path / "drk/streams", tmp_path / "whole").reasons == {"corrupt": 1}


def test_a_crop_that_leaves_a_picture_is_that_pictures_failure(decompressed: Path, tmp_path: Path) -> None:
    """Of streams and of other pictures; those that hold the crop are cropped."""
    source = decompressed / "pictures/decompressed"
    cropped = decompress(source, tmp_path / "out", crop="40,40,30,20", suffixes=(".png",), max_failure_rate=1)
    sizes = {key: row for key, *row in table(decompressed, "manifest", "key, width, height")}
    held = {f"{key}.png" for key, (width, height) in sizes.items() if width >= 70 and height >= 60}
    assert cropped.counts["good"] == len(held) >= 3
    for path in (tmp_path / "out/pictures").rglob("*.png"):
        assert picture(path).pixels.shape[:2] == (20, 30)
    told = table(tmp_path / "out", "failures", "key, stage, reason, message")
    assert {row[0] for row in told} == {f"{key}.png" for key in sizes} - held
    assert {row[1:3] for row in told} == {("decode", "step_failed")}
    assert all("leaves the picture of" in row[3] for row in told)


def test_a_stream_of_an_unknown_model_waits_for_its_weights(pictures: Path, tmp_path: Path) -> None:
    """Without the weights it is a failure that says what to do; with them the next run takes it up, and it alone."""
    shipped = load_model("codec-small", "codec")
    network = FrozenCodec(**shipped.card.sizes)
    network.load_state_dict(shipped.network.state_dict())
    network.log_gain += 0.125
    save_model(str(tmp_path / "mine"), network, shipped.card)
    weights = str(tmp_path / "mine.safetensors")
    (tmp_path / "in").mkdir()
    for key in ("grey.png", "palette.png"):
        (tmp_path / "in" / key).write_bytes((pictures / key).read_bytes())
    compress(tmp_path / "in", tmp_path / "drk", model=weights, include=("grey.png",))
    compress(tmp_path / "in", tmp_path / "drk2", include=("palette.png",))
    for path in (tmp_path / "drk2/streams").rglob("*.drk"):
        (tmp_path / "drk/streams/compressed" / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "out"
    first = decompress(tmp_path / "drk/streams/compressed", out)
    assert (first.counts["good"], first.reasons) == (1, {"unknown_model": 1})
    assert "give the URL of its weights with --model" in table(out, "failures", "message")[0][0]
    second = decompress(tmp_path / "drk/streams/compressed", out, model=(weights,))
    assert (second.counts["objects"], second.counts["good"]) == (1, 1)
    assert picture(out / "pictures/decompressed/grey.png.png").pixels.shape == (64, 80, 1)
    with pytest.raises(ModelError, match="does not exist"):
        decompress(tmp_path / "drk/streams/compressed", out, model=(str(tmp_path / "none.safetensors"),))


def test_metadata_over_the_formats_limit_is_left_out(tmp_path: Path) -> None:
    """A profile of five megabytes does not stop the picture."""
    profile = bytearray(5 << 20)
    profile[16:20], profile[36:40] = b"RGB ", b"acsp"
    (tmp_path / "in").mkdir()
    large = save(Image.fromarray(photograph(40, 40)), "TIFF", icc_profile=bytes(profile))
    (tmp_path / "in/a.tiff").write_bytes(large)
    assert decode(large).metadata.icc is not None
    assert compress(tmp_path / "in", tmp_path / "out").status == "complete"
    stream = (tmp_path / "out/streams/compressed/a.tiff.drk").read_bytes()
    assert read_header(stream).header.icc == b""


def test_from_bucket_to_bucket(s3_store: Store, bucket: str, s3_options: Any) -> None:
    """Pictures in one prefix, streams in a second, pictures again in a third."""
    files = {key: data for key, data in awkward_files().items() if key in ("grey.png", "odd/size.png", "alpha.png")}
    for key, data in files.items():
        write(s3_store, key, data)
    assert compress(s3_store.url, f"s3://{bucket}/drk").counts["good"] == 3
    summary = decompress(f"s3://{bucket}/drk/streams/compressed", f"s3://{bucket}/out", format="webp")
    assert (summary.counts["good"], summary.status) == (3, "complete")
    out = open_store(f"s3://{bucket}/out/pictures/decompressed", s3_options)
    assert [found.key for found in list_objects(out)] == sorted(f"{key}.webp" for key in files)
    assert decode(read(out, "odd/size.png.webp")).pixels.shape == (131, 77, 3)
