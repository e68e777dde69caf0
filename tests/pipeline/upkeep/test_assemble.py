"""Developed frames put together again: the same frames, at the same speed, in every format."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PictureError, PlanError
from pipeline.frames.files import Frames, open_frames
from pipeline.frames.writers import steady, write_frames
from pipeline.pictures.picture import Picture
from pipeline.requests.compression import compression, decompression
from pipeline.requests.pictures import CompressRequest, DecompressRequest
from pipeline.requests.upkeep import AssembleRequest
from pipeline.runs.finish import develop
from pipeline.storage.store import list_objects, open_store, read, write
from pipeline.upkeep.assemble import Assembled, assemble
from tests.frame_files import DURATIONS, KINDS, RATE, animation, moving, stack, video
from tests.runs import request

PLAIN: dict[str, Any] = {
    "branches": {"plain": [], "small": [{"step": "resize", "scale": 0.5}]},
    "output": {"format": "png"},
}


def together(source: Path, out: Path, **changes: Any) -> list[Assembled]:
    return assemble(AssembleRequest(source=str(source), destination=str(out), **changes))


def opened(path: Path) -> Frames:
    return open_frames(str(path), 1_000_000)


def run(source: Path, out: Path, recipe: Any = PLAIN, **changes: Any) -> Path:
    develop(request(source, out, recipe, measure=False, **changes))
    return out


@pytest.mark.parametrize("name", KINDS)
def test_what_nothing_was_done_to_comes_back(name: str, tmp_path: Path) -> None:
    """A branch without steps gives the frames back, in the same format, each shown as long; another branch its own."""
    source, frames = tmp_path / "source", moving(6)
    (source / "deep").mkdir(parents=True)
    (source / "deep" / name).write_bytes(KINDS[name](frames))
    done = together(run(source, tmp_path / "run"), tmp_path / "out", quality=100)
    assert [(one.branch, one.file, one.frames, one.missing, one.message) for one in done] == [
        (branch, f"deep/{name}", 6, [], None) for branch in ("plain", "small")
    ]
    assert json.loads((tmp_path / "out/assembled.json").read_text())[1]["path"] == f"pictures/small/deep/{name}"
    same, smaller = (opened(tmp_path / "out" / "pictures" / branch / "deep" / name) for branch in ("plain", "small"))
    for number in range(6):
        frame = same.read(number)
        np.testing.assert_array_equal(frame.picture.pixels[:, :, :3], frames[number])
        assert frame.duration_s == (DURATIONS[number % 3] if name.endswith((".gif", ".webp", ".apng")) else None)
        assert smaller.read(number).picture.pixels.shape[:2] == (12, 16)


@pytest.mark.parametrize(
    ("name", "code"), [("a.mp4", "mp4v"), ("a.mov", "mp4v"), ("a.avi", "MJPG"), ("a.webm", "VP80")]
)
def test_videos_play_as_they_did(name: str, code: str, tmp_path: Path) -> None:
    """As many frames at the same rate, near to what they were."""
    (tmp_path / "source").mkdir()
    frames = cv2.blur(moving(8, 48, 64).reshape(8 * 48, 64, 3), (9, 9)).reshape(8, 48, 64, 3)
    video(tmp_path / "source" / name, frames, code)
    (done, _) = together(run(tmp_path / "source", tmp_path / "run"), tmp_path / "out")
    assert (done.path, done.frames) == (f"pictures/plain/{name}", 8)
    capture = cv2.VideoCapture(str(tmp_path / "out" / str(done.path)), cv2.CAP_FFMPEG)
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (8, RATE)
    for frame in frames:
        assert np.abs(capture.read()[1][:, :, ::-1].astype(float) - frame).mean() < 14


@pytest.mark.parametrize("format", ["gif", "apng", "tiff", "mkv", "npy"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_formats_without_loss(format: str, channels: int, tmp_path: Path) -> None:
    """What each of these keeps exactly: colours, and alpha where it has any."""
    frames = moving(5, channels=channels)
    if channels == 4:
        frames[..., 3] = np.where(frames[..., 3] > 100, 255, 0)
        frames[frames[..., 3] == 0] = 0
    path = tmp_path / f"a.{format}"
    write_frames(str(path), format, (Picture("", frame) for frame in frames), [0.04] * 5, None)
    seen = opened(path)
    for number, frame in enumerate(frames):
        pixels = seen.read(number).picture.pixels
        if channels == 4 and format == "mkv":
            frame = np.where(frame[:, :, 3:] == 255, frame[:, :, :3], 255)
        if pixels.shape[2] == 4 and channels == 4:
            # what is not seen has no colour
            pixels = np.where(pixels[:, :, 3:] > 0, pixels, 0)
        np.testing.assert_array_equal(pixels, np.broadcast_to(frame, pixels.shape))


@pytest.mark.parametrize("format", ["tiff", "npy"])
def test_16_bits_are_kept(format: str, tmp_path: Path) -> None:
    """Pages and stacks of 16 bits, grey and colour; the stack is one that NumPy reads."""
    (tmp_path / "source").mkdir()
    frames = moving(3, channels=3, dtype=np.uint16)
    (tmp_path / "source/a.npy").write_bytes(stack(frames))
    (tmp_path / "source/grey.npy").write_bytes(stack(frames[..., 0]))
    done = together(run(tmp_path / "source", tmp_path / "run"), tmp_path / "out", format=format, branch=("plain",))
    ending = "" if format == "npy" else ".tiff"
    assert [one.path for one in done] == [f"pictures/plain/a.npy{ending}", f"pictures/plain/grey.npy{ending}"]
    if format == "npy":
        np.testing.assert_array_equal(np.load(tmp_path / "out/pictures/plain/a.npy"), frames)
        np.testing.assert_array_equal(np.load(tmp_path / "out/pictures/plain/grey.npy"), frames[..., 0])
    else:
        done_pages = cv2.imreadmulti(str(tmp_path / "out/pictures/plain/a.npy.tiff"), flags=cv2.IMREAD_UNCHANGED)[1]
        np.testing.assert_array_equal(np.stack(done_pages)[..., ::-1], frames)


def test_many_colours_become_256(tmp_path: Path) -> None:
    """A GIF of a photograph-like picture keeps as much as a palette can."""
    noise = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8), (96, 72))
    frames = [noise, noise[::-1].copy()]
    path = tmp_path / "a.gif"
    write_frames(str(path), "gif", (Picture("", frame) for frame in frames), [0.1, 0.1], None)
    for number, frame in enumerate(frames):
        assert np.abs(opened(path).read(number).picture.pixels.astype(float) - frame).mean() < 8


def test_missing_frames(tmp_path: Path) -> None:
    """They are named; without them the rest is put together and takes the same time; nothing left is a failure."""
    source = tmp_path / "source"
    source.mkdir()
    frames = moving(5)
    (source / "walk.gif").write_bytes(animation(frames, "GIF"))
    (source / "still.png").write_bytes(animation(frames[:1], "PNG"))
    out = run(source, tmp_path / "run")
    (out / "pictures/plain/walk.gif#0002.png").unlink()
    for path in (out / "tables").rglob("manifest/**/*.parquet"):
        assert path.exists()
    _forget(out, "pictures/plain/walk.gif#0002.png")
    first, second = together(out, tmp_path / "out")
    assert first.path is None
    assert "1 of 5 frames are missing: 2 (not developed); --skip-missing" in str(first.message)
    assert second.path == "pictures/small/walk.gif"
    (kept,) = together(out, tmp_path / "out", skip_missing=True, branch=("plain",))
    assert (kept.frames, kept.missing) == (4, [2])
    seen = opened(tmp_path / "out/pictures/plain/walk.gif")
    durations = [seen.read(number).duration_s for number in range(4)]
    expected = [DURATIONS[number % 3] for number in range(5)]
    assert durations == pytest.approx([expected[0], expected[1] + expected[2], expected[3], expected[4]])


def _forget(out: Path, path: str) -> None:
    """Take an object out of the commit that names it, as if the branch had failed there."""
    for commit in out.glob("runs/*/shards/*.json"):
        said = json.loads(commit.read_text())
        said["outputs"] = [entry for entry in said["outputs"] if entry["path"] != path]
        commit.write_text(json.dumps(said))


def test_after_a_file_has_changed(tmp_path: Path) -> None:
    """What several runs have developed is put together as the source is now."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.npy").write_bytes(stack(moving(5)))
    (source / "b.npy").write_bytes(stack(moving(3)))
    run(source, tmp_path / "run")
    (source / "a.npy").write_bytes(stack(moving(2)))
    done = together(run(source, tmp_path / "run"), tmp_path / "out", branch=("plain",))
    assert [(one.file, one.frames) for one in done] == [("a.npy", 2), ("b.npy", 3)]


def test_refusals(tmp_path: Path) -> None:
    """No run, no frames, unknown branches: each says what to do."""
    with pytest.raises(PlanError, match="holds no run"):
        together(tmp_path, tmp_path / "out")
    source = tmp_path / "source"
    source.mkdir()
    (source / "still.gif").write_bytes(animation(moving(1), "GIF"))
    out = run(source, tmp_path / "run")
    with pytest.raises(PlanError, match="holds no frames"):
        together(out, tmp_path / "out")
    (source / "walk.gif").write_bytes(animation(moving(2), "GIF"))
    with pytest.raises(PlanError, match="branch 'other' keeps no pictures there; those that do: plain, small"):
        together(run(source, out), tmp_path / "out", branch=("other",))
    sizes = [Picture("", np.zeros((4, n, 3), np.uint8)) for n in (4, 6)]
    for format in ("gif", "mp4", "npy"):
        with pytest.raises(PictureError, match="as tiff"):
            write_frames(str(tmp_path / f"a.{format}"), format, sizes, [0.1, 0.1], None)
    with pytest.raises(PictureError, match="a million"):
        steady([0.01, 20_000])
    assert steady([0.04, 0.12, 0.0]) == (25, [1, 3, 1])


def test_streams_put_together(tmp_path: Path) -> None:
    """Frames that went through .drk streams and back are known by their names; their rate is to be told."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "walk.gif").write_bytes(animation(moving(3, 64, 64), "GIF"))
    settings: dict[str, Any] = {"workers": 2, "device": "cpu"}
    develop(compression(CompressRequest(source=str(source), destination=str(tmp_path / "drk"), **settings)))
    streams = str(tmp_path / "drk/streams/compressed")
    develop(decompression(DecompressRequest(source=streams, destination=str(tmp_path / "run"), **settings)))
    (done,) = together(tmp_path / "run", tmp_path / "out", format="gif", rate=20)
    assert (done.path, done.frames) == ("pictures/decompressed/walk.gif", 3)
    with Image.open(tmp_path / "out/pictures/decompressed/walk.gif") as image:
        assert (image.n_frames, image.info["duration"]) == (3, 50)


def test_in_buckets(s3_store: Any, tmp_path: Path) -> None:
    """From bucket to bucket to bucket; a video, too, is looked into and fetched there."""
    frames = moving(4)
    write(s3_store, "film.mkv", video(tmp_path / "film.mkv", frames, "FFV1").read_bytes())
    write(s3_store, "deep/walk.webp", animation(frames, "WEBP"))
    out, again = (s3_store.url.replace("/pictures", name) for name in ("/run", "/out"))
    develop(request(s3_store.url, out, PLAIN))
    done = assemble(AssembleRequest(source=out, destination=again, format="npy"))
    names = ("deep/walk.webp.npy", "film.mkv.npy")
    assert [one.path for one in done] == [
        f"pictures/{branch}/{name}" for branch in ("plain", "small") for name in names
    ]
    for name in names:
        data = read(open_store(again), f"pictures/plain/{name}")
        np.testing.assert_array_equal(np.load(io.BytesIO(data))[..., :3], frames)
    assert [one.key for one in list_objects(open_store(again))] == ["assembled.json", *(str(one.path) for one in done)]
