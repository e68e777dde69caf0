"""Animations, pages, videos and stacks as sources: a picture a frame, through whole runs."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.destination.plans import shard_pictures
from pipeline.errors import PictureError
from pipeline.frames import shared_file
from pipeline.frames.files import open_frames
from pipeline.frames.shared_file import SharedFile
from pipeline.pictures.decode import decode
from pipeline.requests.compression import compression, decompression
from pipeline.requests.job import resolve
from pipeline.requests.pictures import CompressRequest, DecompressRequest
from pipeline.runs import listing as frame_source
from pipeline.runs.finish import develop
from pipeline.runs.listing import frame_key, pictures_of
from pipeline.runs.planning import plan_run
from pipeline.storage.store import list_objects, open_store, read, write
from tests.frame_files import DURATIONS, KINDS, RATE, animation, idx, moving, pages, stack, video
from tests.pipeline.runs.test_kill import assert_like_undisturbed, run_and_kill
from tests.runs import darkroom, picture_file, request, snapshot, table

PLAIN: dict[str, Any] = {
    "branches": {"plain": [], "gamma": [{"step": "gamma"}]},
    "output": {"format": "png"},
}


def developed(folder: Path, branch: str, file: str, frame: int) -> np.ndarray:
    path = folder / "pictures" / branch / f"{frame_key(file, frame)}.png"
    return decode(path.read_bytes()).pixels


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_a_picture(name: str, tmp_path: Path) -> None:
    """Keys, manifest rows and metrics of each frame; without a step, pixels as they were; durations are kept."""
    source, out, frames = tmp_path / "source", tmp_path / "out", moving(7)
    (source / "deep").mkdir(parents=True)
    (source / "deep" / name).write_bytes(KINDS[name](frames))
    (source / "still.png").write_bytes(picture_file())
    summary = develop(request(source, out, PLAIN))
    assert (summary.status, summary.counts["good"], summary.counts["rows"]) == ("complete", 8, 16)
    rows = table(out, "manifest", "key, file, frame, frames, duration_s, sha256, width, height")
    digest = hashlib.sha256((source / "deep" / name).read_bytes()).hexdigest()
    timed = name.endswith((".gif", ".webp", ".apng"))
    assert rows[:7] == [
        (f"deep/{name}#{n:04d}", f"deep/{name}", n, 7, DURATIONS[n % 3] if timed else None, digest, 32, 24)
        for n in range(7)
    ]
    assert rows[7][:5] == ("still.png", None, None, None, None)
    for number in range(7):
        np.testing.assert_array_equal(developed(out, "plain", f"deep/{name}", number)[:, :, :3], frames[number])
    again = snapshot(out)
    assert develop(request(source, out, PLAIN)).counts["done"] == 8
    assert snapshot(out) == again


@pytest.mark.parametrize(
    ("name", "code"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.webm", "VP80"), ("a.mov", "mp4v")]
)
def test_videos(name: str, code: str, tmp_path: Path) -> None:
    """As many pictures as frames, each near to what was filmed, shown for one part of the rate."""
    frames = cv2.blur(moving(9, 48, 64).reshape(9 * 48, 64, 3), (9, 9)).reshape(9, 48, 64, 3)
    (tmp_path / "source").mkdir()
    video(tmp_path / "source" / name, frames, code)
    summary = develop(request(tmp_path / "source", tmp_path / "out", PLAIN))
    assert (summary.status, summary.counts["good"]) == ("complete", 9)
    assert set(table(tmp_path / "out", "manifest", "duration_s")) == {(1 / RATE,)}
    for number in range(9):
        seen = developed(tmp_path / "out", "plain", name, number)
        others = [np.abs(seen - frame.astype(float)).mean() for frame in frames]
        assert int(np.argmin(others)) == number
        assert min(others) < 12


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_and_slices_keep_their_bits(dtype: type, tmp_path: Path) -> None:
    """16 bits stay 16 bits, grey stays grey, whichever way round the bytes are."""
    (tmp_path / "source").mkdir()
    colour, grey = moving(3, channels=3, dtype=dtype), moving(4, channels=1, dtype=dtype)
    (tmp_path / "source/colour.tif").write_bytes(pages(colour))
    (tmp_path / "source/grey.tif").write_bytes(pages(grey))
    (tmp_path / "source/swapped.npy").write_bytes(stack(grey[..., 0].astype(np.dtype(dtype).newbyteorder(">"))))
    (tmp_path / "source/rgba.npy").write_bytes(stack(moving(2, channels=4, dtype=dtype)))
    assert develop(request(tmp_path / "source", tmp_path / "out", PLAIN)).counts["good"] == 13
    for name, frames in (("colour.tif", colour), ("grey.tif", grey), ("swapped.npy", grey)):
        for number, frame in enumerate(frames):
            seen = developed(tmp_path / "out", "plain", name, number)
            assert seen.dtype == dtype
            np.testing.assert_array_equal(seen, frame)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files(zipped: bool, tmp_path: Path) -> None:
    """MNIST's files are stacks, gzipped or not; its labels are no pictures."""
    (tmp_path / "source").mkdir()
    frames, ending = moving(12, 28, 28, 1)[..., 0], ".gz" if zipped else ""
    (tmp_path / "source" / f"images-idx3-ubyte{ending}").write_bytes(idx(frames, zipped))
    (tmp_path / "source/labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x02\1\2")
    summary = develop(request(tmp_path / "source", tmp_path / "out", PLAIN))
    assert (summary.counts["good"], summary.reasons) == (12, {"unsupported": 1})
    for number in range(12):
        seen = developed(tmp_path / "out", "plain", f"images-idx3-ubyte{ending}", number)
        np.testing.assert_array_equal(seen[:, :, 0], frames[number])


def test_what_is_taken_apart(tmp_path: Path) -> None:
    """`first` takes one frame under the file's own name, `all` looks into files of any name, `auto` goes by names."""
    source, frames = tmp_path / "source", moving(3)
    source.mkdir()
    (source / "walk.gif").write_bytes(animation(frames, "GIF"))
    (source / "nameless").write_bytes(animation(frames, "GIF"))
    (source / "still.gif").write_bytes(animation(frames[:1], "GIF"))
    (source / "stack.npy").write_bytes(stack(frames))
    (source / "one.npy").write_bytes(stack(frames[:1]))
    keys = {
        mode: [row[0] for row in table(tmp_path / mode, "manifest", "key")]
        for mode in ("first", "auto", "all")
        if develop(request(source, tmp_path / mode, PLAIN, frames=mode)).counts["failed"] == 0
    }
    three = [f"#{number:04d}" for number in range(3)]
    assert keys["first"] == ["nameless", "one.npy", "stack.npy", "still.gif", "walk.gif"]
    assert keys["auto"] == [
        "nameless", "one.npy", *(f"stack.npy{n}" for n in three), "still.gif", *(f"walk.gif{n}" for n in three)
    ]  # fmt: skip
    assert set(keys["all"]) == {*keys["auto"], *(f"nameless{n}" for n in three)} - {"nameless"}


def test_one_broken_page_is_one_failure(tmp_path: Path) -> None:
    """Page 2 of 5 cannot be decoded: one row says so, four pages are developed, and again means nothing to do."""
    source, frames = tmp_path / "source", moving(5, 40, 40)
    source.mkdir()
    parts = [cv2.imencode(".tiff", cv2.cvtColor(f, cv2.COLOR_RGB2BGR))[1].tobytes() for f in frames]
    whole = bytearray(pages(frames))
    at = whole.find(parts[2][8:40])
    offsets = _strip_offsets(bytes(whole))
    assert at != 0
    whole[offsets[2] : offsets[2] + 24] = b"\xff" * 24
    (source / "scan.tiff").write_bytes(whole)
    summary = develop(request(source, tmp_path / "out", PLAIN))
    assert (summary.counts["good"], summary.counts["failed"], summary.reasons) == (4, 1, {"corrupt": 1})
    assert [row[:2] for row in table(tmp_path / "out", "failures", "key, stage")] == [("scan.tiff#0002", "decode")]
    assert develop(request(source, tmp_path / "out", PLAIN)).counts["done"] == 5


def _strip_offsets(data: bytes) -> list[int]:
    """The first strip of each page of a little-endian TIFF."""
    import io

    from PIL import Image

    found = []
    with Image.open(io.BytesIO(data)) as image:
        for number in range(image.n_frames):
            image.seek(number)
            found.append(image.tag_v2[273][0])
    return found


def test_what_is_missing_of_a_video_is_failures(tmp_path: Path) -> None:
    """A video cut short: the frames that are there are pictures, each that is not is a row."""
    source = tmp_path / "source"
    source.mkdir()
    path = video(source / "cut.avi", moving(20, 48, 64), "MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    (source / "playlist.mp4").write_bytes(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    (source / "noise.webm").write_bytes(b"\x1aE\xdf\xa3" + bytes(range(256)))
    summary = develop(request(source, tmp_path / "out", PLAIN, max_failure_rate=1))
    assert 3 < summary.counts["good"] < 17
    rows = dict(table(tmp_path / "out", "manifest", "key, reason"))
    assert rows["playlist.mp4"] == "not_an_image"
    assert rows["noise.webm"] == "corrupt"
    reasons = Counter(reason for key, reason in rows.items() if key.startswith("cut.avi"))
    assert set(reasons) <= {None, "truncated"}


def test_a_frame_outside_its_canvas_does_not_enlarge_it(tmp_path: Path) -> None:
    """A GIF whose third frame says that it is 20,000 pixels wide: it is broken, and no memory is taken for it."""
    data = bytearray(animation(moving(4), "GIF"))
    separators = [found.end() for found in re.finditer(rb"\x21\xf9\x04.{4}\x00\x2c", data, re.DOTALL)]
    data[separators[2] + 4 : separators[2] + 8] = struct.pack("<HH", 20_000, 1_400)
    path = tmp_path / "wide.gif"
    path.write_bytes(data)
    frames = open_frames(str(path), 30_000_000)
    assert [frames.read(number).picture.pixels.shape for number in (0, 1)] == [(24, 32, 3)] * 2
    with pytest.raises(PictureError, match=r"reaches to \(2\d{4}, 14\d\d\), outside the canvas of \(32, 24\)"):
        frames.read(2)
    frames.close()


def test_a_file_that_hangs_when_it_is_looked_into_does_not_hold_up_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is planned as one picture; the frames of the others are known."""
    folder, released = tmp_path / "source", threading.Event()
    folder.mkdir()
    for name in ("a.gif", "hangs.gif", "z.gif"):
        (folder / name).write_bytes(animation(moving(2), "GIF"))
    honest = frame_source.count_frames

    def hanging(file: Any, most: int) -> int:
        if file.name.endswith("hangs.gif"):
            released.wait(60)
        return honest(file, most)

    monkeypatch.setattr(frame_source, "count_frames", hanging)
    store = open_store(folder)
    found = pictures_of(store, list(list_objects(store)), "auto", 100, patience_s=2)
    assert [one.key for one in found] == ["a.gif#0000", "a.gif#0001", "hangs.gif", "z.gif#0000", "z.gif#0001"]
    released.set()


def test_bounds(tmp_path: Path) -> None:
    """More frames than the limit, and frames of too many pixels, are refused before anything is decoded."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "long.gif").write_bytes(animation(moving(9), "GIF"))
    (source / "large.npy").write_bytes(stack(np.zeros((2, 100, 100), np.uint8)))
    (source / "bomb.npy").write_bytes(stack(np.zeros((2, 4, 4), np.uint8)).replace(b"(2, 4, 4)", b"(9,99,99)"))
    changes: dict[str, Any] = {"frame_limit": 8, "pixel_limit": 9999, "max_failure_rate": 1}
    develop(request(source, tmp_path / "out", PLAIN, **changes))
    assert table(tmp_path / "out", "manifest", "key, reason") == [
        ("bomb.npy", "truncated"),
        ("large.npy#0000", "too_large"),
        ("large.npy#0001", "too_large"),
        ("long.gif", "too_large"),
    ]
    assert develop(request(source, tmp_path / "out", PLAIN, **changes)).counts["done"] == 4


def test_new_frames_and_changed_files(tmp_path: Path) -> None:
    """A changed file is developed again, frame by frame; others are not touched."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "a.npy").write_bytes(stack(moving(3)))
    (source / "b.npy").write_bytes(stack(moving(4)))
    assert develop(request(source, out, PLAIN)).counts["good"] == 7
    (source / "b.npy").write_bytes(stack(moving(6)))
    summary = develop(request(source, out, PLAIN))
    assert summary.counts["good"] == 6
    assert develop(request(source, out, PLAIN)).counts["done"] == 9


def test_names_that_are_taken_and_many_frames(tmp_path: Path) -> None:
    """Frames get more digits where four do not do, or where an object has their name."""
    store = open_store(f"memory://frames-{tmp_path.name}")
    write(store, "a.npy", stack(np.zeros((10_001, 1, 1), np.uint8)))
    write(store, "b.npy", stack(moving(2)))
    write(store, "b.npy#0001", picture_file())
    listing = list(list_objects(store))
    found = list(pictures_of(store, listing, "auto", 20_000, {one.key for one in listing}))
    keys = [one.key for one in found]
    assert len(keys) == len(set(keys)) == 10_004
    assert keys[:2] == ["a.npy#00000", "a.npy#00001"]
    assert keys[10_001:] == ["b.npy#00000", "b.npy#00001", "b.npy#0001"]
    assert [one.frame for one in found[:3]] == [0, 1, 2]


def test_a_file_is_fetched_once_and_shards_keep_it_together(s3_store: Any, tmp_path: Path) -> None:
    """From a bucket to a bucket: `#` in keys, a file in one shard up to 16 times its size, read once for each."""
    write(s3_store, "long.npy", stack(moving(70)))
    write(s3_store, "walk.gif", animation(moving(5), "GIF"))
    write(s3_store, "still.png", picture_file())
    asked = request(s3_store.url, s3_store.url.replace("/pictures", "/out"), PLAIN, shard_size=4)
    plan = plan_run(resolve(asked))
    destination = open_store(asked.destination)
    sizes = [[one.object_key for one in shard_pictures(destination, plan, n)] for n in range(plan.shards)]
    assert [len(shard) for shard in sizes] == [64, 6, 6]
    summary = develop(asked)
    assert (summary.status, summary.counts["good"]) == ("complete", 76)
    assert summary.counts["bytes_read"] == sum(
        one.size * (2 if one.key == "long.npy" else 1) for one in list_objects(s3_store)
    )
    keys = [found.key for found in list_objects(destination, ["pictures/plain/*"])]
    assert "pictures/plain/walk.gif#0004.png" in keys
    seen = decode(read(destination, "pictures/plain/long.npy#0066.png")).pixels
    np.testing.assert_array_equal(seen, moving(70)[66])


def test_the_report_shows_frames(tmp_path: Path) -> None:
    """Thumbnails of what a frame was and became."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/walk.gif").write_bytes(animation(moving(3), "GIF"))
    report = develop(request(tmp_path / "source", tmp_path / "out", PLAIN)).report
    page = Path(str(report)).read_text()
    assert "walk.gif#0001" in page
    assert page.count("data:image/webp") >= 4


@pytest.mark.slow
def test_killed_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """`kill -9` between the frames of a file, the same command again: as undisturbed."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "walk.gif").write_bytes(animation(moving(24, 64, 80), "GIF"))
    (source / "stack.npy").write_bytes(stack(moving(40, 64, 80)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(PLAIN))
    settings = ["--recipe", recipe, "--shard-size", 2, "--workers", 2, "--device", "cpu"]
    arguments: list[object] = ["develop", source, out, "--no-prefect", *settings]
    for more in (10, 70):
        run_and_kill(arguments, out, more, 0.01)
    done = darkroom(*arguments)
    assert done.returncode == 0, done.stderr
    develop(request(source, tmp_path / "whole", PLAIN, shard_size=2))
    assert_like_undisturbed(out, tmp_path / "whole", 64)


def test_streams_of_frames(tmp_path: Path) -> None:
    """Compressed frame by frame, and back: a stream a frame, a picture a stream."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/walk.gif").write_bytes(animation(moving(3, 64, 64), "GIF"))
    settings: dict[str, Any] = {"workers": 2, "device": "cpu"}
    asked = CompressRequest(source=str(tmp_path / "source"), destination=str(tmp_path / "drk"), **settings)
    assert develop(compression(asked)).counts["good"] == 3
    streams = tmp_path / "drk/streams/compressed"
    assert sorted(path.name for path in streams.iterdir()) == [f"walk.gif#{n:04d}.drk" for n in range(3)]
    back = DecompressRequest(source=str(streams), destination=str(tmp_path / "out"), **settings)
    assert develop(decompression(back)).counts["good"] == 3
    assert decode((tmp_path / "out/pictures/decompressed/walk.gif#0002.png").read_bytes()).pixels.shape == (
        64,
        64,
        3,
    )


@pytest.mark.parametrize("name", KINDS)
def test_frames_in_any_order_from_several_threads(name: str, tmp_path: Path) -> None:
    """What a shard's threads ask for out of order is what it would be in order."""
    frames = moving(12)
    (tmp_path / name).write_bytes(KINDS[name](frames))
    wanted = [5, 2, 3, 9, 11, 7]
    file = SharedFile(open_store(tmp_path), name, (tmp_path / name).stat().st_size, wanted, 10_000)
    assert file.fetch() > 0 == file.fetch()
    seen: dict[int, np.ndarray] = {}

    def take(number: int) -> None:
        seen[number] = file.read(number, str(number)).picture.pixels

    threads = [threading.Thread(target=take, args=(number,)) for number in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in wanted:
        np.testing.assert_array_equal(seen[number][:, :, :3], frames[number])


def test_nobody_waits_for_a_file_that_hangs(tmp_path: Path) -> None:
    """Once the frame that is being decoded is given up, those behind it fail instead of waiting for ever."""
    (tmp_path / "walk.gif").write_bytes(animation(moving(3), "GIF"))
    file = SharedFile(open_store(tmp_path), "walk.gif", 1000, [0, 1], 10_000)
    file.fetch()
    file.lock.acquire()
    file.busy_with = 0
    file.give_up(1)
    assert not file.hung, "another frame than the one in work"
    file.give_up(0)
    with pytest.raises(PictureError, match="not done in time"):
        file.read(1, "1")
    assert shared_file.SIZE_LIMIT > 0
