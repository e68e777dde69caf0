"""What goes wrong for a while is tried again, what stays wrong is not: seen from a server that counts requests."""

from __future__ import annotations

import base64
import hashlib
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.errors import StorageError
from pipeline.storage import access, s3, s3_requests, store
from pipeline.storage.store import StorageOptions, Store, open_store, with_retries

DATA = bytes(range(256)) * 40


@dataclass
class Faulty:
    """An S3 service with one object of `DATA` everywhere, and a list of faults that come first."""

    url: str = ""
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    received: bytes = b""
    etag: str = '"one"'
    digest: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: Faulty

    def do_GET(self) -> None:
        fault = self.next_fault()
        first, last = 0, len(DATA) - 1
        if "Range" in self.headers:
            first, last = (int(part) for part in self.headers["Range"].removeprefix("bytes=").split("-"))
        body = DATA[first : last + 1]
        if fault.startswith("flipped"):
            wrong = body[:-1] + fault[-1:].encode()
            self.answer(200, wrong, len(wrong))
        elif fault == "short":
            self.answer(206, body[: len(body) // 2], len(body))
            self.close_connection = True
        elif not self.failed(fault):
            self.answer(206 if "Range" in self.headers else 200, body, len(body))

    def do_PUT(self) -> None:
        self.faulty.digest = self.headers.get("Content-MD5", "")
        self.faulty.received = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.failed(self.next_fault()):
            self.answer(200, b"", 0)

    def next_fault(self) -> str:
        self.faulty.requests.append(f"{self.command} {self.path}")
        return self.faulty.faults.pop(0) if self.faulty.faults else ""

    def failed(self, fault: str) -> bool:
        if fault == "reset":
            # Lingering for no time makes the kernel send RST instead of closing in order.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        elif fault:
            status, _, code = fault.partition(" ")
            body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode() if code else b""
            self.answer(int(status), body, len(body))
        return bool(fault)

    def answer(self, status: int, body: bytes, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", self.faulty.etag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[Faulty]:
    state = Faulty()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"faulty": state})) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def faulty(service: Faulty, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    """The service in good order, and retries that do not make the tests wait."""
    monkeypatch.setattr(access, "_BACKOFF_BASE", 0.01)
    service.faults, service.requests, service.received, service.etag = [], [], b"", '"one"'
    return service


@pytest.fixture
def faulty_store(faulty: Faulty) -> Store:
    options = {"endpoint_url": faulty.url, "key": "k", "secret": "s3cr3t", "region": "here"}
    return open_store("s3://bucket/p", StorageOptions.model_validate(options))


PASSING = ["503 SlowDown", "503", "500 InternalError", "429 TooManyRequests", "429", "reset", "400 RequestTimeout"]


@pytest.mark.parametrize("fault", [*PASSING, "short"])
def test_reads_survive_what_passes(faulty: Faulty, faulty_store: Store, fault: str) -> None:
    faulty.faults = [fault] * 3
    assert store.read(faulty_store, "x") == DATA
    assert len(faulty.requests) == 4


@pytest.mark.parametrize("fault", PASSING)
def test_writes_survive_what_passes(faulty: Faulty, faulty_store: Store, fault: str) -> None:
    faulty.faults = [fault] * 2
    store.write(faulty_store, "x", DATA)
    assert faulty.received == DATA
    assert len(faulty.requests) == 3


@pytest.mark.parametrize("fault", ["503 SlowDown", "reset", "short"])
def test_retries_come_to_an_end(faulty: Faulty, faulty_store: Store, fault: str) -> None:
    faulty.faults = [fault] * 100
    with pytest.raises(StorageError, match="s3://bucket/p/x") as caught:
        store.read(faulty_store, "x")
    assert caught.value.kind == "unreachable", "nothing else is to be had there either"
    # aiohttp repeats a request of its own accord when a connection it kept open turns out to be closed.
    assert 8 <= sum("list-type" not in one for one in faulty.requests) <= (16 if fault == "reset" else 8)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("403 AccessDenied", "denied"),
        ("403 InvalidAccessKeyId", "denied"),
        ("403", "denied"),
        ("404 NoSuchKey", "missing"),
        ("404 NoSuchBucket", "missing"),
        ("404", "missing"),
        ("400 InvalidArgument", "invalid"),
        ("400 AuthorizationHeaderMalformed", "invalid"),
        ("501 NotImplemented", "invalid"),
    ],
)
def test_what_stays_wrong_is_asked_once(faulty: Faulty, faulty_store: Store, fault: str, kind: str) -> None:
    for act in (lambda: store.read(faulty_store, "x"), lambda: store.write(faulty_store, "x", DATA)):
        faulty.requests.clear()
        faulty.faults = [fault] * 10
        with pytest.raises(StorageError) as caught:
            act()
        assert caught.value.kind == kind
        assert len(faulty.requests) == 1


def test_a_small_object_costs_one_request(faulty: Faulty, faulty_store: Store) -> None:
    store.read(faulty_store, "x")
    store.read(faulty_store, "x", size=len(DATA))
    store.read(faulty_store, "x", 5, 10)
    assert faulty.requests == ["GET /bucket/p/x"] * 3


@pytest.mark.parametrize("known", [True, False])
def test_every_range_of_a_large_object_is_tried_again(
    faulty: Faulty, faulty_store: Store, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (s3, s3_requests):
        monkeypatch.setattr(module, "PART", 1000)
    faulty.faults = ["" if known else "503", "", "short", "reset", "503 SlowDown"]
    assert store.read(faulty_store, "x", size=len(DATA) if known else None) == DATA
    ranges = -(-len(DATA) // 1000)
    assert len(faulty.requests) == ranges + (3 if known else 2 + 3)


def test_bytes_that_are_not_those_of_the_etag_are_read_again(faulty: Faulty, faulty_store: Store) -> None:
    """However long they are; what comes otherwise every time is no object."""
    faulty.etag = f'"{hashlib.md5(DATA).hexdigest()}"'
    faulty.faults = ["flipped 1", "flipped 2"]
    assert store.read(faulty_store, "x") == DATA
    assert len(faulty.requests) == 3
    faulty.faults = [f"flipped {number}" for number in range(8)]
    with pytest.raises(StorageError, match="not those of its ETag"):
        store.read(faulty_store, "x")


def test_what_is_sent_carries_its_digest(faulty: Faulty, faulty_store: Store) -> None:
    """So that the service can refuse what was changed on its way."""
    store.write(faulty_store, "x", DATA)
    assert faulty.digest == base64.b64encode(hashlib.md5(DATA).digest()).decode()


def test_patience_ends_before_all_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that take long are not made again and again."""
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        time.sleep(0.02)
        raise ConnectionResetError

    monkeypatch.setattr(access, "PATIENCE", 0.03)
    with pytest.raises(StorageError, match="failed for now"):
        with_retries(fail, attempts=100, sleep=lambda pause: None)
    assert len(calls) <= 2


def test_silence_is_an_error(faulty: Faulty, faulty_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_requests, "REQUEST_DEADLINE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = faulty_store.options.model_copy(
            update={"endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        )
        with pytest.raises(StorageError) as caught:
            store.check_access(open_store("s3://bucket/p", options))
    assert caught.value.kind == "transient"


def test_pauses_grow_and_vary() -> None:
    pauses: list[float] = []

    def fail() -> None:
        raise ConnectionResetError

    for _ in range(50):
        with pytest.raises(StorageError, match="failed for now"):
            with_retries(fail, attempts=8, sleep=pauses.append)
    rounds = [pauses[number::7] for number in range(7)]
    assert [max(one) <= min(20, 0.5 * 2**number) for number, one in enumerate(rounds)] == [True] * 7
    assert all(len(set(one)) > 40 for one in rounds)
    assert max(rounds[6]) > 4


def test_mistakes_in_the_program_are_not_hidden() -> None:
    with pytest.raises(TypeError):
        with_retries(lambda: len(3))  # type: ignore[arg-type]


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(StorageError("denied", "no")))
    assert (error.kind, error.message, str(error)) == ("denied", "no", "no")


def test_urls_lose_their_credentials() -> None:
    said = access.without_credentials("at ftp://me:p@ss@host/x and s3://bucket/a@b.png")
    assert said == "at ftp://host/x and s3://bucket/a@b.png"
