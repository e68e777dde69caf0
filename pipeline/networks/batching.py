"""The threads that own the device: pictures that are in work at once meet here, and those of one size share a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.errors import DeviceError

if TYPE_CHECKING:
    from torch import Tensor

    from models.inference import Network


@dataclass
class _Request:
    network: Network
    tensor: Tensor
    answer: Future[Tensor] = field(default_factory=Future)
    asked: float = field(default_factory=time.perf_counter)

    @property
    def kind(self) -> tuple[int, tuple[int, ...]]:
        """Network and shape, which all tensors of a batch have in common."""
        return (id(self.network), tuple(self.tensor.shape))


class Batcher:
    """An owner of one device, which runs networks on it for many threads. A context manager; `apply` blocks until done.

    On a CPU the batch is 1: a batch is no faster there, and a result then never depends on its neighbours. On a GPU two
    threads, each with a stream of its own, take turns: while one computes, the other's batch is copied there or back.
    They start, and PyTorch is imported, with the first tensors.
    `busy` and `waiting` are the seconds the device worked, and those that tensors waited for it, all together.
    """

    def __init__(self, device: str, batch: int = 8):
        self.device = device
        self.batch = batch if device.startswith("cuda") else 1
        self.busy = self.waiting = 0.0
        self._requests: list[_Request] = []
        self._change = threading.Condition()
        self._closed = False
        self._failure: DeviceError | None = None
        self.threads = 2 if device.startswith("cuda") else 1
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join(timeout=60)

    def apply(self, network: Network, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run a network on equal-sized C x h x w tensors and return its results, in their order.

        Raises what the network raised, and DeviceError once a thread of the device has ended by an error.
        """
        requests = [_Request(network, tensor) for tensor in tensors]
        with self._change:
            if self._closed:
                raise RuntimeError("the device has been given back")
            if self._failure:
                raise self._failure
            self._requests += requests
            self._change.notify()
            if not self._threads:
                self._start()
        return [request.answer.result() for request in requests]

    def _start(self) -> None:
        for number in range(self.threads):
            self._threads.append(threading.Thread(target=self._run, name=f"device-{number}", daemon=True))
            self._threads[-1].start()

    def _run(self) -> None:
        try:
            import torch

            stream = torch.cuda.Stream(self.device) if self.device.startswith("cuda") else None
            with torch.cuda.stream(stream):
                self._work()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Answer all who wait, and will ask, with an error: nobody may wait for a thread that is gone."""
        with self._change:
            self._failure = DeviceError(f"the device {self.device} stopped working: {type(error).__name__}: {error}")
            waiting, self._requests = self._requests, []
        for request in waiting:
            request.answer.set_exception(self._failure)

    def _work(self) -> None:
        from models.inference import apply_in_batches

        while True:
            with self._change:
                while not self._requests and not self._closed:
                    self._change.wait()
                if not self._requests:
                    return
                kind = self._requests[0].kind
                batch = [request for request in self._requests if request.kind == kind][: self.batch]
                chosen = set(map(id, batch))
                self._requests = [request for request in self._requests if id(request) not in chosen]
            started = time.perf_counter()
            results: Sequence[Tensor] = ()
            failure: BaseException | None = None
            try:
                tensors = [request.tensor for request in batch]
                results = apply_in_batches(batch[0].network, tensors, self.device, len(batch))
            except BaseException as error:
                failure = error
            # before anybody has an answer and reads it
            with self._change:
                self.busy += time.perf_counter() - started
                self.waiting += sum(started - request.asked for request in batch)
            if failure is not None:
                for request in batch:
                    request.answer.set_exception(failure)
            else:
                for request, result in zip(batch, results, strict=True):
                    request.answer.set_result(result)
