"""Planning as a stream: the same shards as of a whole list, flat memory, nothing to trip over when it is killed."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.destination.history import NONE, Pictures, Settled, frames_settled, join, settled_objects
from pipeline.destination.layout import LEASE, part_path
from pipeline.destination.parquet import to_parquet
from pipeline.destination.plans import Plan, SourcePicture, shard_pictures
from pipeline.errors import TRANSIENT_REASONS, PlanError
from pipeline.events import Event, Listed
from pipeline.requests.form import parse_size
from pipeline.requests.job import resolve
from pipeline.requests.pictures import DevelopRequest
from pipeline.requests.upkeep import GcRequest
from pipeline.runs import planning as plan_module
from pipeline.runs.finish import develop
from pipeline.runs.partition import cut, growing_size
from pipeline.runs.planning import batches, plan_run
from pipeline.storage.store import StoredObject, list_objects, open_store, write
from pipeline.upkeep.collect import collect
from tests.benchmarks.measuring import in_fresh_process
from tests.benchmarks.planning import plan_names, pretend_done
from tests.frame_files import animation, moving
from tests.processes import ROOT
from tests.runs import QUICK, fill, request


def planned(asked: DevelopRequest, plan: Plan) -> list[list[SourcePicture]]:
    out = open_store(asked.destination)
    return [shard_pictures(out, plan, shard) for shard in range(plan.shards)]


def test_a_plan_holds_the_listing_cut_into_shards(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every object in the order of the listing with all that it says; the shards are of the size asked for.

    Gone on with under other filters it stays as it is, which is said.
    """
    source = fill(tmp_path / "source", 25)
    asked = request(source, tmp_path / "out", shard_size=4)
    told: list[Event] = []
    plan = plan_run(resolve(asked), told.append)
    listing = [SourcePicture(f.key, f.url, f.size, f.etag, f.modified) for f in list_objects(open_store(source))]
    assert planned(asked, plan) == [listing[start : start + 4] for start in range(0, 25, 4)]
    assert (plan.objects, plan.shards, told) == (25, 7, [Listed(25)])
    again = plan_run(resolve(asked))
    assert (again.run, again.parts, again.resumed) == (plan.run, plan.parts, True)
    assert not caplog.messages
    plan_run(resolve(asked.model_copy(update={"exclude": ("*9.png",)})))
    assert caplog.messages == [
        f"run {plan.run} goes on as it was planned; the new --exclude counts from the next run on"
    ]
    elsewhere = plan_run(resolve(asked.model_copy(update={"destination": str(tmp_path / "other")})))
    assert elsewhere.run == plan.run


def test_results_inside_the_source_are_no_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whichever run left them, and wherever this one's go; folders that only have such a name are the user's own."""
    source = fill(tmp_path / "source", 3)
    fill(source / "album" / "pictures" / "summer", 2)
    inside = source / "a[b]" / "out"
    develop(request(source, inside))
    assert (inside / "pictures").is_dir()
    elsewhere = request(source, tmp_path / "out")
    plan = plan_run(resolve(elsewhere))
    keys = [one.key for shard in planned(elsewhere, plan) for one in shard]
    assert keys == sorted(keys)
    assert len(keys) == 5
    assert not [key for key in keys if key.startswith("a[b]")]
    (said,) = caplog.messages
    assert str(inside) in said
    assert "left out" in said
    caplog.clear()
    assert develop(request(source, inside)).status == "nothing_to_do"
    assert not caplog.messages


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 30)), max_size=30),
    st.integers(1, 4),
    st.integers(1, 100),
)
def test_shards_are_full_whole_and_in_order(files: list[tuple[int, int]], size: int, most_bytes: int) -> None:
    """No picture lost or moved; none too many or too large; a file's frames stay together; none could be longer."""
    pictures = []
    for at, (frames, length) in enumerate(files):
        name = f"{at:03d}.gif"
        for frame in range(frames):
            file = name if frames > 1 else None
            pictures.append(SourcePicture(f"{name}#{frame:04d}" if file else name, "", length, "e", None, file))
    shards = list(cut(pictures, size, most_bytes))
    assert list(itertools.chain(*shards)) == pictures

    def weight(shard: list[SourcePicture]) -> int:
        return sum({one.object_key: one.size for one in shard}.values())

    for shard, following in itertools.pairwise([*shards, []]):
        assert weight(shard) <= most_bytes or len({one.object_key for one in shard}) == 1
        assert len(shard) < size + 5
        if following:
            assert following[0].object_key != shard[-1].object_key
            full = len(shard) >= size or weight(shard) + following[0].size > most_bytes
            assert full


def test_shards_grow_with_the_count() -> None:
    """64 pictures at first, 2048 at most; ten millions are some five thousand shards."""
    sizes = []
    while sum(sizes) < 10_000_000:
        sizes.append(growing_size(sum(sizes)))
    assert (sizes[0], sizes[-1], sizes == sorted(sizes)) == (64, 2048, True)
    assert 4_000 < len(sizes) < 6_000


def test_names_in_the_way_of_frames_are_seen_over_the_end_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of one object: the GIF's frames still make way for an object that has the name of one."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/walk.gif").write_bytes(animation(moving(3), "GIF"))
    for name in ("a.png", "walk.gif !.png", "walk.gif#0001", "walk.gif.png"):
        (tmp_path / "source" / name).write_bytes(b"")
    asked = request(tmp_path / "source", tmp_path / "out", shard_size=100)
    monkeypatch.setattr(plan_module, "_FIRST_BATCH", 1)
    monkeypatch.setattr(plan_module, "_BATCH", 1)
    (pictures,) = planned(asked, plan_run(resolve(asked)))
    frames = [f"walk.gif#0000{number}" for number in range(3)]
    assert [one.key for one in pictures] == ["a.png", *frames, "walk.gif !.png", "walk.gif#0001", "walk.gif.png"]


@given(st.lists(st.sampled_from(["a.gif", "a.gif ", "a.gif#0000", "a.gif#1", "a.gif/x", "b", "c.gif"]), unique=True))
def test_batches_hold_every_object_once(names: list[str]) -> None:
    """In order, whatever is kept together."""
    listing = [(StoredObject(name, name, 1, "e", None), NONE) for name in sorted(names)]
    assert list(itertools.chain(*batches(listing, "auto"))) == listing


_REASONS = st.sampled_from([None, None, "corrupt", *sorted(TRANSIENT_REASONS)])
_OBJECT = st.tuples(st.sampled_from("abcdef"), st.sampled_from(["e1", "e2"]), st.integers(1, 3), _REASONS)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.booleans(), st.lists(_OBJECT, unique_by=lambda one: one[0], max_size=6)), max_size=4),
    st.integers(1, 3),
)
def test_the_merge_of_manifests_is_what_a_dictionary_says(
    runs: list[tuple[bool, list[tuple[str, str, int, str | None]]]], size: int
) -> None:
    """Objects and files of frames of many runs, failed and gone ones among them: as if all had been held at once."""
    destination = open_store(f"memory://settled-{next(_NUMBERS)}")
    settled: dict[str, Settled] = {}
    plans = []
    for at, (gone, objects) in enumerate(runs):
        rows, failed = [], []
        for key, etag, frames, reason in sorted(objects):
            for frame in range(frames):
                file = key if frames > 1 else None
                name = f"{key}#{frame:04d}" if file else key
                rows.append({"key": name, "etag": etag, "file": file, "frames": frames if file else None})
                if reason and not gone:
                    failed.append({"key": name, "reason": reason, "stage": "read", "message": ""})
                if gone:
                    settled.pop(name, None)
                elif reason not in TRANSIENT_REASONS:
                    settled[name] = Settled(etag, file, frames if file else None, failed=reason is not None)
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        plans.append(Plan(f"r{at}", "", "", at, len(rows), len(parts), gone=gone))
        for shard, part in enumerate(parts):
            keys = {row["key"] for row in part}
            told = {"shard": shard, "sequence": at, "url": "", "size": 1, "status": "ok"}
            own = [row | {"shard": shard, "sequence": at} for row in failed if row["key"] in keys]
            write(destination, part_path("manifest", f"r{at}", shard), to_parquet("manifest", [r | told for r in part]))
            if not gone:
                write(destination, part_path("failures", f"r{at}", shard), to_parquet("failures", own))
    merged = list(settled_objects(destination, plans))
    assert [key for key, _ in merged] == sorted({key for _, objects in runs for key, *_ in objects})
    assert {name: one for _, pictures in merged for name, one in pictures.items()} == settled
    listing = [StoredObject(key, key, 1, "e1", None) for key in "abcdefg"]
    for found, pictures in join(listing, iter(merged)):
        expected = {name: one for name, one in settled.items() if (one.file or name) == found.key}
        assert pictures == expected
        assert frames_settled(found, pictures) == whole(found, expected)


_NUMBERS = itertools.count()


def whole(found: StoredObject, pictures: Pictures) -> int:
    """How many frames an object has if all are settled, counted one by one."""
    for one in pictures.values():
        same = [p for p in pictures.values() if p.etag == found.etag and (p.file, p.frames) == (one.file, one.frames)]
        if one.etag == found.etag and len(same) == (one.frames if one.file else 1):
            return len(same)
    return 0


def test_a_manifest_out_of_order_is_refused(tmp_path: Path) -> None:
    """Merging it would take settled pictures for new ones."""
    told = {"shard": 0, "sequence": 0, "url": "", "size": 1, "status": "ok", "etag": "e"}
    destination = open_store(tmp_path)
    write(destination, part_path("manifest", "r0", 0), to_parquet("manifest", [told | {"key": k} for k in "ba"]))
    write(destination, part_path("failures", "r0", 0), to_parquet("failures", []))
    with pytest.raises(PlanError, match="not in the order of the keys"):
        list(settled_objects(destination, [Plan("r0", "", "", 0, 2, 1)]))


KILLED = """
import os, signal, sys
from pipeline.destination.lease import hold
from pipeline.runs.planning import plan_run
from pipeline.requests.job import resolve
from pipeline.requests.pictures import DevelopRequest
from pipeline.events import Listed
from tests.runs import only
asked = DevelopRequest(source=sys.argv[1], destination=sys.argv[2], recipe=%r, shard_size=50)
with hold(resolve(asked).destination) as lease:
    die = lambda listed: listed.objects > 1000 and os.kill(os.getpid(), signal.SIGKILL)
    plan_run(resolve(asked), only(Listed, die), lease)
"""


def test_a_planning_that_is_killed_leaves_nothing_to_trip_over(tmp_path: Path) -> None:
    """`kill -9` when a thousand of 1,200 objects are planned: the next plan is whole, and gc removes the parts."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for number in range(1200):
        (source / f"{number:04d}.png").write_bytes(b"")
    killed = subprocess.run([sys.executable, "-c", KILLED % QUICK, source, out], cwd=ROOT, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert (out / LEASE).exists()
    left = list(out.glob("runs/planning-*/*"))
    assert left
    asked = request(source, out, shard_size=50)
    plan = plan_run(resolve(asked))
    assert (plan.objects, plan.shards, plan.resumed) == (1200, 24, False)
    assert sum(len(shard) for shard in planned(asked, plan)) == 1200
    collected = collect(GcRequest(destination=str(out)))
    assert collected.objects == {"runs": len(left)}
    assert not (out / LEASE).exists()
    assert sum(len(shard) for shard in planned(asked, plan)) == 1200


def test_a_plan_of_an_earlier_version_is_told_from_a_broken_one(tmp_path: Path) -> None:
    """Both are one line that says what to do."""
    source = fill(tmp_path / "source", 1)
    (tmp_path / "out/runs/r1").mkdir(parents=True)
    broken = {'{"run": "r1"}': "planned by an earlier version", "[1]": "is not readable", "{": "is not readable"}
    for content, said in broken.items():
        (tmp_path / "out/runs/r1/plan.json").write_text(content)
        with pytest.raises(PlanError, match=said):
            plan_run(resolve(request(source, tmp_path / "out")))


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("512 MB", 512_000_000), ("2GiB", 2 << 30), ("1.5k", 1500), (" 3 tib ", 3 << 40), ("7b", 7)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert request("a", "b", shard_bytes=text).shard_bytes == size


@pytest.mark.parametrize("text", ["", "many", "0", "-1", "1 XB", "1e9", "0.1", "9" * 30, "1..2 MB", "١"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"size"):
        parse_size(text)


@pytest.mark.slow
def test_memory_is_flat_over_the_number_of_names(tmp_path: Path) -> None:
    """Ten times the names, planned from nothing and after a run over all of them, take hardly more memory."""
    peaks = {}
    for count in (20_000, 200_000):
        out = str(tmp_path / str(count))
        first = in_fresh_process(plan_names, count, out)
        assert (first.result["objects"], first.result["done"]) == (count, 0)
        pretend_done(count, out, first.result["run"])
        second = in_fresh_process(plan_names, count, out)
        assert second.result["objects"] + second.result["done"] == count
        # the first of every shard
        assert 0 < second.result["objects"] < count / 50
        peaks[count] = max(first.peak, second.peak)
    assert peaks[200_000] - peaks[20_000] < 60_000_000


def test_a_part_of_a_plan_keeps_its_columns(tmp_path: Path) -> None:
    """Other programs read parts, too: names and types are fixed."""
    asked = request(fill(tmp_path / "source", 1), tmp_path / "out")
    plan = plan_run(resolve(asked))
    schema = pq.read_schema(tmp_path / f"out/runs/{plan.parts}/part-00000.parquet")
    assert schema.names == ["key", "url", "size", "etag", "modified", "file", "frame", "frames"]
    assert schema.field("modified").type == pa.timestamp("us", tz="UTC")
