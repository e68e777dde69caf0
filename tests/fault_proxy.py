"""A loopback HTTP proxy that does to requests what networks and busy services do, in shares that are told.

From a shell:  python -m tests.fault_proxy http://HOST:PORT [--share 0.11] [--seed 0]   (runs until SIGINT)

Faults are dealt from a shuffled deck, so that shares are exact over a deck: error 503 and 500, connections reset before
or after the service has acted, bodies cut in the middle, silence until the client goes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any
from urllib.parse import urlsplit

#: kinds of fault, and how many there are among 100 requests
USUAL = {"503": 3, "500": 2, "reset": 2, "truncated": 2, "stall": 2}
_LARGEST = 1 << 30


class FaultProxy:
    """A proxy that runs in a thread of its own; `url` is its endpoint, `met` counts what it has done to whom.

    `deal` changes the faults at any time; whatever has `spoilt` in its path is never to be had. Every connection
    carries one request.
    """

    def __init__(self, upstream: str, seed: int = 0):
        self.upstream, self.chance = urlsplit(upstream), random.Random(seed)
        self.met: Counter[str] = Counter()
        self.faults: dict[str, int] = {}
        self.spoilt = ""
        self.of, self.deck, self.url = 100, list[str](), ""
        self.loop = asyncio.new_event_loop()

    def deal(self, faults: dict[str, int], of: int = 100) -> None:
        """From now on so many faults of each kind among `of` requests."""
        self.faults, self.of, self.deck = faults, of, []

    def _next(self) -> str:
        if not self.deck:
            self.deck = [kind for kind, count in self.faults.items() for _ in range(count)]
            self.deck += [""] * (self.of - len(self.deck))
            self.chance.shuffle(self.deck)
        return self.deck.pop()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer, or what becomes of them."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            fields = {name.strip().lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines[1:])}
            if b"expect" in fields:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
            kept = [x for x in lines[:-2] if x.partition(b":")[0].lower() not in (b"expect", b"connection")]
            request = b"\r\n".join([*kept, b"Connection: close", b"", b""]) + body
            spoilt = self.spoilt and self.spoilt.encode() in lines[0]
            await self._answer("500" if spoilt else self._next(), request, reader, writer)
        writer.close()

    async def _answer(
        self, fault: str, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if fault in ("500", "503"):
            code = "SlowDown" if fault == "503" else "InternalError"
            text = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
            answer = f"HTTP/1.1 {fault} Told\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode()
            await self._send(fault, answer + (b"" if request.startswith(b"HEAD") else text), writer)
            return
        if fault in ("reset", "stall") and self.chance.random() < 0.5:
            await self._leave(fault, reader, writer)
            return
        answer = await self._ask(request)
        if fault in ("reset", "stall"):
            await self._leave(fault, reader, writer)
            return
        start = answer.find(b"\r\n\r\n") + 4
        if fault == "truncated" and (request.startswith(b"HEAD") or len(answer) - start < 2):
            # there is no body to cut: the next answer's turn
            self.deck.append(fault)
            fault = ""
        if fault == "truncated":
            answer = answer[: start + (len(answer) - start) // 2]
        await self._send(fault, answer, writer)

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self.upstream.hostname, self.upstream.port, limit=_LARGEST)
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer

    async def _send(self, fault: str, answer: bytes, writer: asyncio.StreamWriter) -> None:
        self.met[fault or "none"] += 1
        writer.write(answer)
        await writer.drain()

    async def _leave(self, fault: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.met[fault] += 1
        if fault == "stall":
            await reader.read()
            return
        # lingering for no time makes the kernel send RST instead of closing in order
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@contextlib.contextmanager
def fault_proxy(upstream: str, seed: int = 0) -> Iterator[FaultProxy]:
    """Run a proxy before a service; at first it does no harm (see `FaultProxy.deal`)."""
    proxy = FaultProxy(upstream, seed)
    ready = threading.Event()

    async def run() -> None:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await server.serve_forever()

    thread = threading.Thread(target=lambda: _until_cancelled(proxy.loop, run()), daemon=True)
    thread.start()
    ready.wait(30)
    yield proxy
    proxy.loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(proxy.loop)])
    thread.join(10)


def _until_cancelled(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(work)
    loop.run_until_complete(_all_ended(asyncio.all_tasks(loop)))
    loop.close()


async def _all_ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Serve until told to stop, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream", metavar="URL")
    parser.add_argument("--share", type=float, default=0.11, help="of requests that go wrong")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with fault_proxy(arguments.upstream, arguments.seed) as proxy, contextlib.suppress(KeyboardInterrupt):
        faults = sum(USUAL.values())
        proxy.deal(USUAL if arguments.share else {}, max(faults, round(faults / (arguments.share or 1))))
        print(f"READY {proxy.url}", flush=True)
        while True:
            time.sleep(60)
    print(dict(proxy.met))


if __name__ == "__main__":
    main()
