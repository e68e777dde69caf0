"""`darkroom verify` finds each kind of damage, `--repair` mends just that; `darkroom gc` removes just the leftovers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.destination.layout import VERIFICATION
from pipeline.destination.lease import hold
from pipeline.errors import LeaseHeld, PlanError
from pipeline.requests.job import resolve
from pipeline.requests.upkeep import GcRequest, VerifyRequest
from pipeline.runs.finish import develop
from pipeline.runs.planning import plan_run
from pipeline.shards.shard import run_shard
from pipeline.storage.s3 import place_of
from pipeline.storage.s3_requests import call
from pipeline.storage.store import Store, delete, exists, list_objects, open_store, open_uploads, read, write
from pipeline.upkeep.collect import collect
from pipeline.upkeep.verify import verify
from tests.runs import QUICK, darkroom, fill, picture_file, request

PICTURE = "pictures/gamma/001.png.png"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Store]:
    """A source of four pictures and one that is none, and an empty destination."""
    if request.param == "local":
        source, out = open_store(tmp_path / "source"), open_store(tmp_path / "out")
    else:
        bucket = request.getfixturevalue("bucket")
        source, out = open_store(f"s3://{bucket}/source"), open_store(f"s3://{bucket}/out")
    for number in range(4):
        write(source, f"{number:03d}.png", picture_file(number))
    write(source, "bad.png", b"no picture")
    return source, out


def asked(out: Store, **changes: object) -> VerifyRequest:
    return VerifyRequest(destination=out.url, **changes)  # type: ignore[arg-type]


def everything(out: Store) -> dict[str, bytes]:
    """Every object but the account of when what was done."""
    written = {found.key: read(out, found.key) for found in list_objects(out)}
    return {k: v for k, v in written.items() if not k.startswith(("runs/", "tables/metrics/", "current/metrics/"))}


def cut_off(out: Store, path: str) -> None:
    write(out, path, read(out, path)[:-5])


def flip(out: Store, path: str) -> None:
    data = bytearray(read(out, path))
    data[len(data) // 2] ^= 1
    write(out, path, data)


def claim_less(out: Store, path: str) -> None:
    commit = json.loads(read(out, path))
    write(out, path, json.dumps(commit | {"good": commit["good"] - 1}).encode())


DAMAGE: dict[str, tuple[Callable[[Store, str], None], str, str, bool]] = {
    "lost picture": (delete, PICTURE, "missing", True),
    "lost stream": (delete, "streams/jpeg/002.png.jpg", "missing", True),
    "cut picture": (cut_off, PICTURE, "size", True),
    "flipped bit": (flip, PICTURE, "checksum", False),
    "lost table": (delete, "tables/manifest/run={run}/part-00000.parquet", "missing", True),
    "flipped table": (flip, "tables/failures/run={run}/part-00001.parquet", "checksum", False),
    "lost commit": (delete, "runs/{run}/shards/00001.json", "commit", True),
    "cut commit": (cut_off, "runs/{run}/shards/00000.json", "commit", True),
    "wrong sum": (claim_less, "runs/{run}/shards/00000.json", "rows", True),
}


@pytest.mark.parametrize(
    "names",
    [("lost picture", "flipped bit", "lost table", "cut commit"), pytest.param(tuple(DAMAGE), marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_every_kind_of_damage_is_found_and_mended(names: tuple[str, ...], places: tuple[Store, Store]) -> None:
    """One after the other: named with its object; --quick sees what needs no bytes; after --repair all is as before."""
    source, out = places
    run = develop(request(source.url, out.url)).run
    before = everything(out)
    found = verify(asked(out))
    assert (found.findings, found.leftovers, found.runs, found.shards) == ([], 0, 1, 2)
    assert found.objects == 4 * 3 + 2 * 4
    assert verify(asked(out, quick=True)).findings == []
    for name in names:
        damage, path, what, quick_sees = DAMAGE[name]
        damage(out, path.format(run=run))
        findings = verify(asked(out)).findings
        assert {(one.what, one.path) for one in findings} == {(what, path.format(run=run))}, name
        assert bool(verify(asked(out, quick=True)).findings) == quick_sees, name
        mended = verify(asked(out, repair=True, report=True))
        assert (mended.findings, mended.not_repaired) == ([], []), name
        assert {one.path for one in mended.repaired} == {path.format(run=run)}, name
        assert mended.leftovers == 0, name
        assert everything(out) == before, name
    assert b"All is well" in read(out, VERIFICATION)
    assert not [found.key for found in list_objects(out, ["runs/lease.json", "runs/*/again.json"])]


def test_a_lost_and_a_changed_object_in_a_bucket_are_found_and_mended(bucket: str) -> None:
    """The lost one by listing, the changed one by its bytes."""
    source, out = open_store(f"s3://{bucket}/source"), open_store(f"s3://{bucket}/out")
    for number in range(2):
        write(source, f"{number:03d}.png", picture_file(number))
    develop(request(source.url, out.url))
    before = everything(out)
    delete(out, PICTURE)
    flip(out, "streams/jpeg/000.png.jpg")
    assert [one.what for one in verify(asked(out, quick=True)).findings] == ["missing"]
    mended = verify(asked(out, repair=True))
    assert ([one.what for one in mended.repaired], mended.findings) == (["missing", "checksum"], [])
    assert everything(out) == before


def test_what_cannot_be_mended_is_named_and_the_rest_is(places: tuple[Store, Store]) -> None:
    """A source that is gone, one that has changed, one that is still there; rows and results of the first two stay."""
    source, out = places
    develop(request(source.url, out.url, shard_size=10))
    lost = [f"pictures/gamma/00{number}.png.png" for number in (0, 1, 2)]
    for path in lost:
        delete(out, path)
    delete(source, "000.png")
    write(source, "001.png", picture_file(99, height=50))
    found = verify(asked(out, repair=True))
    assert [one.path for one in found.findings] == lost[:2]
    assert [one.path for one in found.repaired] == lost[2:]
    assert ["000.png" in text for text in found.not_repaired] == [True, False]
    assert "001.png: its source is gone or has changed" in found.not_repaired[1]
    assert exists(out, "streams/jpeg/000.png.jpg")


def test_of_two_runs_that_claim_a_path_the_later_one_counts(tmp_path: Path) -> None:
    """A fresh run with another recipe has replaced pictures; that is no damage, and repairs leave them the later's."""
    source, out = fill(tmp_path / "source", 3), tmp_path / "out"
    first = develop(request(source, out)).run
    other = {"branches": {"gamma": [{"step": "gamma", "gamma": 0.5}]}, "output": {"format": "png"}}
    develop(request(source, out, other, fresh=True))
    path = next((out / "pictures/gamma").rglob("001.png.png"))
    later = path.read_bytes()
    found = verify(asked(open_store(out)))
    assert (found.findings, found.superseded) == ([], 3)
    (out / f"tables/latents/run={first}/part-00000.parquet").unlink()
    mended = verify(asked(open_store(out), repair=True))
    assert (mended.findings, mended.not_repaired) == ([], [])
    assert path.read_bytes() == later


def test_gc_removes_what_no_commit_names_and_nothing_else(places: tuple[Store, Store]) -> None:
    """Objects of an uncommitted shard, of a killed planning; not files of others, nor a run that can be taken up."""
    source, out = places
    develop(request(source.url, out.url))
    write(source, "004.png", picture_file(4))
    plan = plan_run(resolve(request(source.url, out.url)))
    run_shard(resolve(request(source.url, out.url)), plan, 0)
    delete(out, f"runs/{plan.run}/shards/00000.json")
    uncommitted = ["pictures/gamma/004.png.png", "pictures/jpeg/004.png.png", "streams/jpeg/004.png.jpg"]
    uncommitted += [found.key for found in list_objects(out, [f"tables/*/run={plan.run}/*"])]
    write(out, "runs/planning-0123456789ab/part-00000.parquet", b"killed")
    foreign = ["notes.txt", "pictures/holiday/a.jpg", "runs/mine.txt", "explorations/x/y.html", "tables/mine/a.parquet"]
    for path in foreign:
        write(out, path, b"theirs")
    leftover = {*uncommitted, "runs/planning-0123456789ab/part-00000.parquet"}
    before = {found.key for found in list_objects(out)}
    dry = collect(GcRequest(destination=out.url, dry_run=True))
    assert sorted(dry.examples) == sorted(leftover)
    assert sum(dry.objects.values()) == len(leftover)
    assert verify(asked(out)).leftovers == len(leftover)
    assert {found.key for found in list_objects(out)} == before
    young = collect(GcRequest(destination=out.url, older_than=1))
    assert not young.objects
    with hold(out), pytest.raises(LeaseHeld):
        collect(GcRequest(destination=out.url))
    collect(GcRequest(destination=out.url))
    assert {found.key for found in list_objects(out)} == before - leftover
    resumed = develop(request(source.url, out.url))
    assert (resumed.run, resumed.counts["good"]) == (plan.run, 1)
    assert verify(asked(out)).findings == []


@pytest.mark.slow
def test_gc_gives_up_uploads_of_killed_runs(bucket: str, tmp_path: Path) -> None:
    """Those to our own folders, whatever is or is not there under their keys; nobody else's."""
    out = open_store(f"s3://{bucket}/out")
    develop(request(fill(tmp_path / "source", 2), out.url))
    ours = [PICTURE, "streams/jpeg/999.png.jpg", "runs/planning-0123456789ab/part-00000.parquet"]
    theirs = ["pictures/holiday/a.jpg", "runs/mine.txt", "notes.txt"]
    place = place_of(out)
    for key in ours + theirs:
        name = {"Key": place.prefix + key}
        upload = call(place, "create_multipart_upload", key, **name)["UploadId"]
        call(place, "upload_part", key, **name, UploadId=upload, PartNumber=1, Body=b"killed")
    assert verify(asked(out)).leftovers == len(ours)
    assert sum(collect(GcRequest(destination=out.url, older_than=1)).objects.values()) == 0
    collected = collect(GcRequest(destination=out.url))
    assert (sum(collected.objects.values()), sum(collected.bytes.values())) == (len(ours), len(ours) * len(b"killed"))
    assert [upload.key for upload in open_uploads(out, "")] == sorted(theirs)
    assert (verify(asked(out)).findings, exists(out, PICTURE)) == ([], True)


def test_gc_removes_nothing_where_it_cannot_know(tmp_path: Path) -> None:
    """A damaged commit names who knows what; a folder without a run is nobody's to clean."""
    with pytest.raises(PlanError, match="holds no run"):
        collect(GcRequest(destination=str(tmp_path)))
    source, out = fill(tmp_path / "source", 2), tmp_path / "out"
    run = develop(request(source, out)).run
    (out / f"runs/{run}/shards/00000.json").write_text("{")
    before = sorted(out.rglob("*"))
    with pytest.raises(PlanError, match="verify --repair"):
        collect(GcRequest(destination=str(out)))
    assert sorted(out.rglob("*")) == before


def test_the_commands_say_what_they_found(tmp_path: Path) -> None:
    """JSON and exit code 1; mended exit code 0; half-written files of killed processes go."""
    source, out = fill(tmp_path / "source", 2), tmp_path / "out"
    develop(request(source, out, QUICK))
    (out / PICTURE).unlink()
    unfinished = out / "pictures/gamma/.darkroom-0123456789abcdef.part"
    unfinished.write_bytes(b"half")
    done = darkroom("verify", out, "--no-prefect", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    finding = json.loads(done.stdout)["findings"][0]
    assert (finding["path"], finding["what"]) == (PICTURE, "missing")
    mended = darkroom("verify", out, "--no-prefect", "--repair")
    assert (mended.returncode, "all is well" in mended.stdout) == (0, True)
    removed = darkroom("gc", out, "--no-prefect")
    assert (removed.returncode, unfinished.exists()) == (0, False)
