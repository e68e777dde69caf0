"""An S3 service on loopback that answers as told: what real ones do to single objects, and no service does on request.

It checks no signature. Paths are taken as they come, so that keys may hold `//`, `.` and `..`, and end in `/`.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

from pipeline.storage.store import StorageOptions


@dataclass
class Told:
    """An object: the bytes as stored, and how the service tells of them and sends them.

    `etag` is their MD5 where it is empty. `sent` are what the first, second ... GET get instead, the last one again and
    again. `error` is "STATUS CODE" that every GET is answered with. `whole` answers a range with all bytes.
    """

    data: bytes
    etag: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: Sequence[bytes] = ()
    error: str = ""
    storage: str = "STANDARD"
    whole: bool = False


@dataclass
class Service:
    """What the service holds, by bucket and key, and every request that came: method, key and headers in small."""

    objects: dict[str, Told]
    payer: bool = False
    listings: bool = True
    url: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    parts: dict[int, bytes] = field(default_factory=dict)
    kind: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which Darkroom finds the service."""
        return {
            "DARKROOM_S3_ENDPOINT": self.url,
            "DARKROOM_S3_KEY": "key",
            "DARKROOM_S3_SECRET": "a-secret",
            "DARKROOM_S3_REGION": "us-east-1",
            "DARKROOM_S3_PATH_STYLE": "true",
        }

    @property
    def options(self) -> StorageOptions:
        """The same as options."""
        told = {"endpoint_url": self.url, "key": "key", "secret": "a-secret", "region": "us-east-1", "path_style": True}
        return StorageOptions.model_validate(told)

    def gets(self, key: str) -> int:
        """How often an object was fetched."""
        return sum(method == "GET" and asked == key for method, asked, _ in self.requests)


@contextmanager
def told_s3(objects: Mapping[str, Told | bytes], payer: bool = False, listings: bool = True) -> Iterator[Service]:
    """Serve objects of the bucket `bucket`, by key; `payer` refuses those who do not say that they pay.

    Without `listings` none may list.
    """
    held = {key: one if isinstance(one, Told) else Told(one) for key, one in objects.items()}
    service = Service(held, payer, listings)
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"service": service})) as server:
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield service
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    def do_GET(self) -> None:
        key, query = self._asked()
        if self.service.payer and self.headers.get("x-amz-request-payer") != "requester":
            return self._refuse("403 AccessDenied")
        if not key and "uploads" in query:
            return self._answer(
                200, b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"
            )
        if not key:
            return self._list(query) if self.service.listings else self._refuse("403 AccessDenied")
        one = self.service.objects.get(key)
        if one is None:
            return self._refuse("404 NoSuchKey")
        # archives refuse the bytes, and tell of them
        if one.error and self.command == "GET":
            return self._refuse(one.error, f"<StorageClass>{one.storage}</StorageClass>")
        data = (
            one.sent[min(self.service.gets(key), len(one.sent)) - 1] if one.sent and self.command == "GET" else one.data
        )
        headers = {"ETag": f'"{_etag(one)}"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT", **one.headers}
        asked = self.headers.get("Range", "")
        if not asked or one.whole:
            return self._answer(200, data, headers)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        end = min(int(last or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{end}/{len(data)}"
        return self._answer(206, data[int(first) : end + 1], headers)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        key, query = self._asked()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers.get("Content-Type", "")
        if "partNumber" in query:
            self.service.parts[int(query["partNumber"])] = data
            return self._answer(200, b"", {"ETag": '"part"'})
        self.service.objects[key] = Told(data, headers={"Content-Type": kind})
        return self._answer(200, b"", {"ETag": f'"{_etag(self.service.objects[key])}"'})

    def do_POST(self) -> None:
        key, query = self._asked()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in query:
            self.service.kind = self.headers.get("Content-Type", "")
            name = "InitiateMultipartUploadResult"
            return self._answer(200, f"<{name}><UploadId>one</UploadId></{name}>".encode())
        data = b"".join(piece for _, piece in sorted(self.service.parts.items()))
        self.service.objects[key] = Told(data, "of-parts-2", {"Content-Type": self.service.kind})
        return self._answer(
            200, b'<CompleteMultipartUploadResult><ETag>"of-parts-2"</ETag></CompleteMultipartUploadResult>'
        )

    def do_DELETE(self) -> None:
        self.service.objects.pop(self._asked()[0], None)
        self._answer(204, b"")

    def _asked(self) -> tuple[str, dict[str, str]]:
        path, _, query = self.path.partition("?")
        key = unquote(path.removeprefix("/").partition("/")[2])
        self.service.requests.append((self.command, key, {k.lower(): v for k, v in self.headers.items()}))
        return key, {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}

    def _list(self, query: Mapping[str, str]) -> None:
        rows = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{_etag(one)}&quot;</ETag><Size>{len(one.data)}</Size>"
            f"<StorageClass>{one.storage}</StorageClass></Contents>"
            for key, one in sorted(self.service.objects.items())
            if key.startswith(query.get("prefix", ""))
        )
        head = f"<Name>bucket</Name><Prefix>{escape(query.get('prefix', ''))}</Prefix><EncodingType>url</EncodingType>"
        told = f"<ListBucketResult>{head}<IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        self._answer(200, told.encode())

    def _refuse(self, error: str, more: str = "") -> None:
        status, _, code = error.partition(" ")
        said = f"<Error><Code>{code}</Code><Message>as told</Message>{more}</Error>"
        self._answer(int(status), said.encode())

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _etag(one: Told) -> str:
    return one.etag or hashlib.md5(one.data).hexdigest()


def checksum(name: str, data: bytes) -> dict[str, str]:
    """Return the header by which S3 declares a digest of an object's bytes."""
    return {f"x-amz-checksum-{name}": base64.b64encode(hashlib.new(name, data).digest()).decode()}
