"""Which way a command takes, from settings in real files; and what it says of APIs that cannot be used."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from flows.command.show import prefect as carried
from flows.command.show.prefect import through, way_of
from flows.orchestration.api import ApiError, Way, choose_way, prefect_home, recorded, spare_loopback
from pipeline.requests.upkeep import VerifyRequest
from tests.runs import darkroom

OTHER = "http://prefect.example/api"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of Prefect of its own, a working folder without settings, and no setting in the environment."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def profile(home: Path, text: str) -> None:
    (home / "profiles.toml").write_text(text)


def test_without_an_api_work_is_done_plainly(home: Path) -> None:
    assert choose_way(None) == Way(False, "no Prefect API is configured")
    assert choose_way(True) == Way(True, "--prefect")
    assert choose_way(None, "the block 'mine' is kept there").prefect


def test_an_api_is_found_wherever_prefect_finds_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profile, pyproject.toml, prefect.toml, .env, environment: each goes before those that were there before it."""
    profile(home, f'active = "a"\n[profiles.a]\nPREFECT_API_URL = "{OTHER}/1"\n[profiles.b]\n')
    assert choose_way(None) == Way(True, "the Prefect profile 'a'", f"{OTHER}/1")
    Path("pyproject.toml").write_text(f'[tool.prefect.api]\nurl = "{OTHER}/2"\n')
    assert choose_way(None).api == f"{OTHER}/2"
    Path("prefect.toml").write_text(f'[api]\nurl = "{OTHER}/3"\n')
    assert choose_way(True) == Way(True, "api.url in prefect.toml", f"{OTHER}/3")
    Path(".env").write_text(f"PREFECT_API_URL={OTHER}/4\n")
    assert choose_way(None).api == f"{OTHER}/4"
    monkeypatch.setenv("PREFECT_API_URL", "http://me:hush@prefect.example/api")
    way = choose_way(None)
    assert way.text() == "through Prefect at http://prefect.example/api (PREFECT_API_URL)"
    assert "hush" not in json.dumps(way.record())
    assert choose_way(False) == Way(False, "--no-prefect")


def test_the_profile_named_in_the_environment_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile(home, f'active = "a"\n[profiles.a]\nPREFECT_API_URL = "{OTHER}"\n[profiles.b]\n')
    monkeypatch.setenv("PREFECT_PROFILE", "b")
    assert not choose_way(None).prefect
    monkeypatch.setenv("PREFECT_PROFILE", "local")
    assert choose_way(None).api == "http://127.0.0.1:4200/api"
    monkeypatch.setenv("PREFECT_PROFILE", "c")
    with pytest.raises(ApiError, match=r"no Prefect profile 'c' in .*profiles.toml"):
        choose_way(None)


@pytest.mark.parametrize("text", ["torn [", "\x00", 'active = "a', "active = 3"])
def test_a_torn_profile_is_said(text: str, home: Path) -> None:
    profile(home, text)
    with pytest.raises(ApiError, match=r"profile"):
        choose_way(None)
    assert not choose_way(False).prefect


def test_a_torn_file_of_another_project_is_none_of_ours(home: Path) -> None:
    Path("pyproject.toml").write_text("[tool.other\n")
    assert not choose_way(None).prefect
    Path("pyproject.toml").write_text("[tool.prefect\n")
    with pytest.raises(ApiError, match=r"pyproject\.toml"):
        choose_way(None)


def test_a_profile_without_address_that_allows_no_server_is_said(home: Path) -> None:
    profile(home, 'active = "bare"\n[profiles.bare]\n')
    assert not choose_way(None).prefect
    with pytest.raises(ApiError, match=r"profile 'bare' allows no server.*PREFECT_API_URL"):
        choose_way(True)


def test_a_home_that_cannot_be_written_to_is_said_where_a_server_would_need_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file/below", Path("/proc/none")):
        monkeypatch.setenv("PREFECT_HOME", str(path))
        assert not choose_way(None).prefect
        with pytest.raises(ApiError, match=rf"PREFECT_HOME, the folder {path}, cannot be written to"):
            choose_way(True)


def test_a_server_at_work_on_this_machine_is_found(home: Path) -> None:
    """While its process lives; a record that a killed one has left, or that is torn, is none."""
    with recorded("http://127.0.0.1:4200/api"):
        assert choose_way(None) == Way(True, "darkroom serve", "http://127.0.0.1:4200/api")
        record = prefect_home() / "darkroom" / "serve.json"
        kept = json.loads(record.read_text())
        for wrong in (kept | {"pid": 2**22 + 1}, kept | {"started": 1.0}, kept | {"pid": "x"}, {}, [], 3):
            record.write_text(json.dumps(wrong))
            assert not choose_way(None).prefect
        record.write_bytes(b"\xff{")
        assert not choose_way(None).prefect
        record.write_text(json.dumps(kept))
    assert not record.exists()
    assert not choose_way(None).prefect


def test_proxies_are_kept_away_from_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was spared before stays so; without a proxy nothing is changed."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "x")
    spare_loopback()
    assert "NO_PROXY" not in os.environ
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org, localhost")
    monkeypatch.setenv("NO_PROXY", "")
    spare_loopback("0.0.0.0")
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "example.org,localhost,127.0.0.1,::1,0.0.0.0"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that answers the same to every request; gives the URL of what is taken for its API."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent(drip: bool = False) -> Iterator[str]:
    """A port that accepts and never answers; or, dripping, a byte of a header now and then."""
    over = threading.Event()

    def work() -> None:
        with closing(listener.accept()[0]) as caller:
            while not over.wait(0.2):
                if drip:
                    caller.send(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        over.set()


@contextmanager
def refusing() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/api"


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (refusing, "does not answer .*refused"),
        (silent, "does not answer"),
        (lambda: silent(drip=True), "does not answer"),
        (lambda: answering(500, b"oh"), "answers 500"),
        (lambda: answering(404, b""), "answers 404; .*/api"),
        (lambda: answering(401, b""), r"refuses us \(401\); set PREFECT_API_AUTH_STRING"),
        (lambda: answering(200, b"<html>welcome</html>"), "answers something that Prefect's API does not"),
        (lambda: answering(200, b"[1]"), "answers something that Prefect's API does not"),
        (lambda: answering(200, b'"2.20.3"'), "cannot be used .*incompatible versions"),
    ],
)
def test_an_api_that_cannot_be_used_is_said(
    server: Callable[[], contextmanager], told: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried, "PATIENCE", 2.0)
    with server() as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        way = way_of(VerifyRequest(destination="x"), None)
        with pytest.raises(ApiError, match=rf"^the Prefect API {url} \(PREFECT_API_URL\) {told}"), through(way):
            pass


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1/api", "http://[::1/api"])
def test_an_address_that_is_none_is_said(url: str, home: Path) -> None:
    with pytest.raises(ApiError, match="--no-prefect"), through(Way(True, "PREFECT_API_URL", url)):
        pass


@pytest.mark.slow
def test_a_command_says_in_one_line_that_its_api_is_down(home: Path, tmp_path: Path) -> None:
    """With code 3, for programs as well; with --no-prefect it does without."""
    with silent() as url:
        done = darkroom("verify", tmp_path, "--json", PREFECT_API_URL=url)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (3, 1), done.stderr
    assert url in json.loads(done.stdout)["error"]
    profile(home, "torn [")
    done = darkroom("verify", tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.strip().splitlines())) == (3, "", 1), done.stderr
    done = darkroom("verify", tmp_path, "--no-prefect")
    assert (done.returncode, done.stdout) == (2, "without Prefect (--no-prefect)\n"), done.stderr


@pytest.mark.slow
def test_a_server_that_cannot_start_is_said_in_one_line(home: Path, tmp_path: Path) -> None:
    """Its database is a folder: Prefect would start it again and again."""
    (home / "prefect.db").mkdir()
    done = darkroom("verify", tmp_path, "--prefect", "--json")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (3, 1), done.stderr
    assert "does not start" in json.loads(done.stdout)["error"]
