"""What a run does with pictures that cannot be done: each is a row with a reason, and the rest goes on."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import StorageError
from pipeline.pictures.decode import decode
from pipeline.runs.finish import develop
from pipeline.shards import branches, stream
from tests.picture_files import save, small_files, smooth
from tests.runs import QUICK, fill, picture_file, python, request, table

REASONS = "key, branch, stage, reason"
#: a budget of which one picture of 40 x 56 pixels takes more than half
ONE_PICTURE = 120_000


def test_files_that_are_no_pictures_are_rows_with_a_reason(tmp_path: Path) -> None:
    """Empty, cut, foreign, lying and oversized files each get their own reason; the good one is developed."""
    source = fill(tmp_path / "source", 1)
    whole = small_files()["jpeg"]
    bad = {
        "text.jpg": (b"hello " * 50, "not_an_image"),
        "empty.png": (b"", "truncated"),
        "cut.png": (picture_file()[:400], "truncated"),
        "cut.jpg": (whole[: len(whole) // 2], "truncated"),
        "large.png": (save_png(300, 200), "too_large"),
    }
    for name, (data, _) in bad.items():
        (source / name).write_bytes(data)
    summary = develop(request(source, tmp_path / "out", pixel_limit=50_000, max_failure_rate=1))
    assert table(tmp_path / "out", "failures", REASONS) == sorted(
        (name, None, "decode", reason) for name, (_, reason) in bad.items()
    )
    assert (summary.counts["good"], summary.counts["failed"], summary.counts["rows"]) == (1, 5, 2)
    assert summary.reasons == {"not_an_image": 1, "truncated": 3, "too_large": 1}
    assert all(message for (message,) in table(tmp_path / "out", "failures", "message"))


def save_png(width: int, height: int) -> bytes:
    return cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def test_one_branch_may_fail_while_the_others_stay(tmp_path: Path) -> None:
    """A resize beyond all bounds and a WebP too wide are branch failures; the picture is done in part."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "wide.png").write_bytes(save_png(16_400, 2))
    recipe = {
        "branches": {
            "huge": [{"step": "resize", "scale": 1000, "method": "cubic"}],
            "webp": [{"step": "webp"}],
            "stored": {"steps": [{"step": "gamma"}], "output": {"format": "webp"}},
            "gamma": [{"step": "gamma"}],
        }
    }
    summary = develop(request(source, tmp_path / "out", recipe))
    assert (summary.status, summary.counts["partial"], summary.counts["branch_failures"]) == ("complete", 1, 3)
    assert table(tmp_path / "out", "failures", REASONS) == [
        ("wide.png", "huge", "develop", "step_failed"),
        ("wide.png", "stored", "encode", "unsupported"),
        ("wide.png", "webp", "develop", "step_failed"),
    ]
    assert table(tmp_path / "out", "metrics", "branch") == [("gamma",)]


def test_a_branch_can_be_the_reference(tmp_path: Path) -> None:
    """Branches are compared with the one that is named, which is itself compared with the source."""
    recipe = {
        "reference": "half",
        "branches": {
            "same": [{"step": "resize", "scale": 0.5}, {"step": "png"}],
            "half": [{"step": "resize", "scale": 0.5}],
            "full": [{"step": "gamma"}],
        },
    }
    develop(request(fill(tmp_path / "source", 2), tmp_path / "out", recipe))
    rows = table(tmp_path / "out", "metrics", "DISTINCT branch, reference, psnr, width, entropy IS NULL")
    assert rows == [
        ("full", "half", None, 56, False),
        ("half", "source", None, 28, False),
        ("same", "half", 100.0, 28, False),
    ]


def test_branches_whose_reference_failed_say_so(tmp_path: Path) -> None:
    """Without its reference a branch cannot be measured: a failure row of the stage `measure`."""
    recipe = {
        "reference": "huge",
        "branches": {"gamma": [{"step": "gamma"}], "huge": [{"step": "resize", "scale": 1000}]},
    }
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.png").write_bytes(save_png(3000, 1000))
    develop(request(source, tmp_path / "out", recipe))
    assert table(tmp_path / "out", "failures", REASONS) == [
        ("a.png", "gamma", "measure", "step_failed"),
        ("a.png", "huge", "develop", "step_failed"),
    ]


@pytest.mark.parametrize("format", ["same", "png", "jpeg"])
def test_pictures_of_every_kind_go_through_every_kind_of_step(format: str, tmp_path: Path) -> None:
    """Grey, alpha, palette, CMYK and 16-bit sources give a developed picture each, of the size and kind asked for."""
    source = tmp_path / "source"
    source.mkdir()
    for name, data in small_files().items():
        (source / f"{name}.bin").write_bytes(data)
    (source / "grey 16.bin").write_bytes(cv2.imencode(".png", smooth(40, 36, 1, np.uint16))[1].tobytes())
    (source / "grey alpha.bin").write_bytes(grey_alpha())
    recipe = {
        "branches": {
            "clahe": [{"step": "clahe"}, {"step": "unsharp_mask"}],
            "balanced": [{"step": "grey_world"}, {"step": "contrast_stretch"}],
            "denoised": [{"step": "denoise"}],
            "smaller": [{"step": "resize", "scale": 0.5}],
            "jpeg": [{"step": "jpeg"}],
            "learned": [{"step": "autoencode"}],
        },
        "output": {"format": format},
    }
    out = tmp_path / "out"
    summary = develop(request(source, out, recipe, shard_size=100))
    assert table(out, "failures", f"{REASONS}, message") == []
    assert summary.counts["rows"] == 6 * (len(small_files()) + 2)
    manifest = {key: rest for key, *rest in table(out, "manifest", "key, width, height, channels, bit_depth")}
    for path in out.glob("pictures/*/*"):
        found = decode(path.read_bytes(), path.name)
        width, height, channels, bits = manifest[path.name.rpartition(".")[0]]
        smaller = path.parent.name == "smaller"
        assert found.pixels.shape[:2] == ((round(height / 2), round(width / 2)) if smaller else (height, width)), path
        if format == "png":
            assert found.pixels.shape[2] == channels, path
            if path.parent.name in ("clahe", "balanced", "denoised", "smaller"):
                # a graphic that restoration leaves alone is a copy, of its own depth
                copied = path.parent.name == "denoised" and found.metadata.bit_depth == bits
                assert copied or found.metadata.bit_depth == (16 if bits == 16 else 8), path


def grey_alpha() -> bytes:
    return save(Image.fromarray(smooth(30, 40, 2), "LA"), "PNG")


def test_what_may_pass_is_tried_again_by_the_next_run_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that failed is taken up again, alone; a corrupt file is not; a third run does nothing."""
    source = fill(tmp_path / "source", 4)
    (source / "bad.png").write_bytes(b"bad")
    honest = stream.read

    def broken(store: Any, key: str, **others: Any) -> bytes:
        if key == "001.png":
            raise StorageError("transient", "the wire was cut")
        return honest(store, key, **others)

    with monkeypatch.context() as patch:
        patch.setattr(stream, "read", broken)
        first = develop(request(source, tmp_path / "out"))
    assert (first.counts["good"], first.counts["failed"]) == (3, 2)
    assert table(tmp_path / "out", "failures", REASONS) == [
        ("001.png", None, "read", "read_error"),
        ("bad.png", None, "decode", "not_an_image"),
    ]
    second = develop(request(source, tmp_path / "out"))
    assert (second.counts["objects"], second.counts["good"]) == (1, 1)
    assert develop(request(source, tmp_path / "out")).status == "nothing_to_do"


def test_storage_that_answers_no_more_stops_the_run_without_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreachable source is no failure of the pictures: nothing is committed, the next run goes on."""
    source = fill(tmp_path / "source", 4)

    def gone(*_: Any, **__: Any) -> bytes:
        raise StorageError("unreachable", "nothing answers")

    with monkeypatch.context() as patch:
        patch.setattr(stream, "read", gone)
        with pytest.raises(StorageError, match="nothing answers"):
            develop(request(source, tmp_path / "out"))
    assert not list((tmp_path / "out").glob("runs/*/shards/*"))
    assert develop(request(source, tmp_path / "out")).counts["good"] == 4


@pytest.mark.skipif(os.name != "posix", reason="needs file names that a destination refuses")
def test_a_name_that_the_destination_refuses_is_a_failure_row(tmp_path: Path) -> None:
    """A key whose output's name is too long for the disk fails by itself, once and for all."""
    source = fill(tmp_path / "source", 1)
    name = "n" * 251 + ".png"
    (source / name).write_bytes(picture_file())
    summary = develop(request(source, tmp_path / "out"))
    counts = summary.counts
    assert (counts["good"], counts["failed"], counts["branch_failures"]) == (1, 1, 2)
    rows = table(tmp_path / "out", "failures", REASONS)
    assert rows == [(name, branch, "write", "write_error") for branch in ("gamma", "jpeg")]
    assert develop(request(source, tmp_path / "out")).status == "nothing_to_do"


HANG = """
import sys, time
from pipeline.shards import branches
from pipeline.runs.finish import develop
from tests.runs import request

honest = branches._run_step
def hanging(item, before, settings, apply):
    if before.picture.key == "001.png":
        time.sleep(10_000)
    return honest(item, before, settings, apply)

branches._run_step = hanging
summary = develop(request(sys.argv[1], sys.argv[2], deadline_s=3, workers=1))
print(summary.status, summary.counts["good"], summary.reasons)
"""


def test_a_picture_that_hangs_fails_alone_and_holds_up_nothing(tmp_path: Path) -> None:
    """A step that never returns: its picture gets a `deadline` row, the run ends, and so does the process."""
    source = fill(tmp_path / "source", 6)
    assert python(HANG, source, tmp_path / "out").split("\n")[0] == "complete 5 {'deadline': 1}"
    assert table(tmp_path / "out", "failures", REASONS) == [("001.png", None, "develop", "deadline")]
    assert develop(request(source, tmp_path / "out")).counts["objects"] == 1
    assert develop(request(source, tmp_path / "out")).status == "nothing_to_do"


def test_a_hanging_picture_gives_back_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that had all of the budget does not starve the pictures after it."""
    monkeypatch.setattr(stream, "memory_for_pictures", lambda *_: ONE_PICTURE)
    released = False
    honest = branches._run_step

    def hanging(item: Any, before: Any, settings: Any, apply: Any) -> Any:
        while before.picture.key == "001.png" and not released:
            time.sleep(0.05)
        return honest(item, before, settings, apply)

    monkeypatch.setattr(branches, "_run_step", hanging)
    summary = develop(request(fill(tmp_path / "source", 6), tmp_path / "out", deadline_s=3, shard_size=6))
    released = True
    assert (summary.counts["good"], summary.reasons) == (5, {"deadline": 1})


def test_waiting_for_memory_is_not_held_against_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that work one after another for want of memory each have the whole deadline."""
    monkeypatch.setattr(stream, "memory_for_pictures", lambda *_: ONE_PICTURE)
    honest = branches._run_step

    def slow(item: Any, before: Any, settings: Any, apply: Any) -> Any:
        time.sleep(1.5)
        return honest(item, before, settings, apply)

    monkeypatch.setattr(branches, "_run_step", slow)
    recipe = {"branches": {"gamma": QUICK["branches"]["gamma"]}}
    summary = develop(
        request(fill(tmp_path / "source", 4), tmp_path / "out", recipe, deadline_s=4, workers=4, shard_size=4)
    )
    assert summary.reasons == {}


def test_a_shard_ends_at_its_deadline_with_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of its pictures are rows that a later run takes up again; the run itself ends well."""
    source, honest = fill(tmp_path / "source", 6), branches._run_step
    released = threading.Event()

    def slow(item: Any, before: Any, settings: Any, apply: Any) -> Any:
        if before.picture.key in ("003.png", "005.png"):
            released.wait(60)
        return honest(item, before, settings, apply)

    with monkeypatch.context() as patch:
        patch.setattr(branches, "_run_step", slow)
        summary = develop(request(source, tmp_path / "out", shard_deadline_s=6, shard_size=6, workers=3))
        released.set()
    assert (summary.status, summary.counts["good"], summary.reasons) == ("complete", 4, {"shard_deadline": 2})
    rows = table(tmp_path / "out", "failures", REASONS)
    assert rows == [(key, None, "develop", "shard_deadline") for key in ("003.png", "005.png")]
    assert develop(request(source, tmp_path / "out")).counts["good"] == 2
    assert develop(request(source, tmp_path / "out")).status == "nothing_to_do"


MEMORY = """
import resource, sys
from pipeline.runs.finish import develop
from tests.runs import request

develop(request(sys.argv[1], sys.argv[2], workers=2, shard_size=40, measure=False))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    """Four times the pictures take at most 15 % more memory at the peak."""
    sizes = {"height": 300, "width": 400}
    few = int(python(MEMORY, fill(tmp_path / "few", 40, **sizes), tmp_path / "out-few"))
    many = int(python(MEMORY, fill(tmp_path / "many", 160, **sizes), tmp_path / "out-many"))
    assert many < 1.15 * few, (few, many)
