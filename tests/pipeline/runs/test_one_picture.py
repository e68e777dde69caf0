"""A source that is one picture: a run over its folder that is about that picture alone."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from darkroom import compress, decompress, evaluate, verify
from pipeline.errors import PlanError, RequestError, StorageError
from pipeline.requests.job import Job, check_request
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop
from pipeline.runs.forecast import forecast
from pipeline.runs.planning import plan_run
from pipeline.storage.store import Store, open_store, write
from tests.runs import QUICK, contents, fill, picture_file, request, table


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four pictures, two of them in a folder below."""
    return fill(tmp_path / "source", 4)


def keys(destination: Path) -> list[str]:
    return [key for (key,) in table(destination, "manifest", "key")]


def test_one_picture_is_what_its_folder_has_of_it(source: Path, tmp_path: Path) -> None:
    """The same key, files and rows as in a run over the folder; others follow into the destination, none twice."""
    develop(request(source, tmp_path / "whole"))
    for name in ("001.png", "003.png"):
        summary = develop(request(source / name, tmp_path / "out"))
        assert (summary.status, summary.counts["good"]) == ("complete", 1)
    assert keys(tmp_path / "out") == ["001.png", "003.png"]
    whole = contents(tmp_path / "whole", "pictures/")
    assert contents(tmp_path / "out", "pictures/") == {path: mark for path, mark in whole.items() if "deep" not in path}
    assert develop(request(source / "001.png", tmp_path / "out")).status == "nothing_to_do"
    rest = develop(request(source, tmp_path / "out"))
    assert (rest.counts["good"], len(keys(tmp_path / "out"))) == (2, 4)
    assert verify(tmp_path / "out").findings == []


def test_a_forecast_of_one_picture_is_of_one(source: Path, tmp_path: Path) -> None:
    found = forecast(check_request(request(source / "001.png", tmp_path / "out")))
    assert (found.status, found.objects, found.bytes) == ("develop", 1, (source / "001.png").stat().st_size)


def test_a_run_over_one_picture_is_taken_up_as_it_was_planned(source: Path, tmp_path: Path) -> None:
    """Its record names the folder and the picture, so that a worker does that one and no other."""
    job = check_request(request(source / "001.png", tmp_path / "out"))
    plan = plan_run(job)
    record = json.loads((tmp_path / f"out/runs/{plan.run}/request.json").read_text())
    assert [one.key for one in Job.from_record(record).objects()] == ["001.png"]
    assert develop(request(source, tmp_path / "out")).counts["good"] == 1


@pytest.mark.parametrize("name", ["a [b] *.png", "été ☂.png", "no ending"])
def test_any_name_can_be_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(picture_file())
    develop(request(tmp_path / "in" / name, tmp_path / "out"))
    assert keys(tmp_path / "out") == [name]
    assert (tmp_path / f"out/pictures/gamma/{name}.png").exists()


def test_links_keep_their_names_inside_their_folder(source: Path, tmp_path: Path) -> None:
    """One that leads elsewhere is followed, and the picture is known by the name it has there."""
    (source / "inside.png").symlink_to("001.png")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/outside.png").symlink_to(source / "003.png")
    develop(request(source / "inside.png", tmp_path / "out"))
    develop(request(tmp_path / "links/outside.png", tmp_path / "out"))
    assert keys(tmp_path / "out") == ["003.png", "inside.png"]


def test_a_bad_picture_alone_is_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    summary = develop(request(tmp_path / "bad.png", tmp_path / "out"))
    assert (summary.status, summary.reasons) == ("failed", {"not_an_image": 1})


def test_what_one_picture_cannot_go_with(source: Path, tmp_path: Path) -> None:
    """Destinations that end like a file, filters, its own folder, a name that is not there; nothing is written."""
    one = source / "001.png"
    for wrong, told in (("out.png", "a run leaves a folder"), ("out.drk", "such as .*out.drk/")):
        with pytest.raises(RequestError, match=told):
            develop(request(one, tmp_path / wrong))
    with pytest.raises(RequestError, match="leave out --include"):
        develop(request(one, tmp_path / "out", include=("*.png",)))
    with pytest.raises(PlanError, match="mix results"):
        develop(request(one, source))
    with pytest.raises(StorageError, match=r"no such folder or file"):
        develop(request(source / "nix.png", tmp_path / "out"))
    assert not list(tmp_path.glob("out*"))
    assert develop(request(one, f"{tmp_path}/out.png/")).counts["good"] == 1


def test_an_object_of_a_bucket(s3_store: Store, tmp_path: Path) -> None:
    """Its folder is not listed for it; with a slash it is a folder, and so is an empty one."""
    write(s3_store, "deep/a.png", picture_file(1))
    write(s3_store, "deep/a.png/b.png", picture_file(2))
    write(s3_store, "marked", b"")
    write(s3_store, "marked/c.png", picture_file(3))
    develop(request(f"{s3_store.url}/deep/a.png", tmp_path / "one"))
    develop(request(f"{s3_store.url}/deep/a.png/", tmp_path / "folder"))
    develop(request(f"{s3_store.url}/marked", tmp_path / "marked"))
    assert [keys(tmp_path / name) for name in ("one", "folder", "marked")] == [["a.png"], ["b.png"], ["c.png"]]
    summary = develop(request(f"{s3_store.url}/deep/a.png", f"{s3_store.url}/out"))
    assert summary.counts["good"] == 1


class _NoListings(SimpleHTTPRequestHandler):
    """A web server that shows no folder."""

    def list_directory(self, path: object) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("handler", "listed"), [(_NoListings, False), (SimpleHTTPRequestHandler, True)])
def test_a_picture_of_a_web_server(
    handler: type[SimpleHTTPRequestHandler], listed: bool, source: Path, tmp_path: Path
) -> None:
    """Also where folders are not shown; where they are, the page of a folder is no picture but the folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(source))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert develop(request(f"{url}/001.png", tmp_path / "out")).counts["good"] == 1
        assert develop(request(f"{url}/001.png", tmp_path / "out")).status == "nothing_to_do"
        assert keys(tmp_path / "out") == ["001.png"]
        if listed:
            assert develop(request(f"{url}/deep/er", tmp_path / "folder")).counts["good"] == 2
        server.shutdown()


def test_memory_has_single_pictures_too(tmp_path: Path) -> None:
    write(open_store("memory://one-picture"), "a.png", picture_file())
    develop(request("memory://one-picture/a.png", tmp_path / "out"))
    assert keys(tmp_path / "out") == ["a.png"]


def test_streams_and_comparisons_of_one_picture(source: Path, tmp_path: Path) -> None:
    """Compression and decompression into folders, and evaluations of codecs and of a suite, by the same rule."""
    compress(source / "001.png", tmp_path / "small", device="cpu")
    assert [path.name for path in (tmp_path / "small/streams/compressed").iterdir()] == ["001.png.drk"]
    stream = (tmp_path / "small/streams/compressed/001.png.drk").rename(tmp_path / "unnamed")
    back = decompress(stream, tmp_path / "back", device="cpu")
    assert (back.status, back.counts["good"]) == ("complete", 1)
    codecs = evaluate(source / "001.png", tmp_path / "codecs", codecs=("jpeg",), points=2, device="cpu")
    assert (codecs.pictures, codecs.left_out) == (1, 0)
    suite = evaluate(source / "001.png", tmp_path / "suite", suite="deblock", device="cpu")
    assert suite.pictures == 1


def test_one_object_is_said_by_its_key(source: Path, tmp_path: Path) -> None:
    """From Python the folder and the key of one object can be named apart, too."""
    asked = DevelopRequest(source=str(source), destination=str(tmp_path / "out"), recipe=QUICK, only="deep/er/002.png")
    assert develop(asked).counts["good"] == 1
    assert keys(tmp_path / "out") == ["deep/er/002.png"]
