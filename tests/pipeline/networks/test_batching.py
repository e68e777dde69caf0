"""The thread that owns the device: batches of one size, errors that reach whoever asked, a clean end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from models.errors import DeviceError
from pipeline.networks.batching import Batcher

PATIENCE = 20


class Network(nn.Module):
    """Notes every batch it is given; `on_batch` may wait or raise."""

    def __init__(self, factor: float = 2, on_batch: Callable[[Tensor], None] = lambda batch: None):
        super().__init__()
        self.factor, self.on_batch, self.seen = factor, on_batch, []  # type: ignore[var-annotated]

    def forward(self, batch: Tensor) -> Tensor:
        self.seen.append(tuple(batch.shape))
        self.on_batch(batch)
        return batch * self.factor


def batcher_of(batch: int) -> Batcher:
    """A batcher on the CPU that batches as one on a GPU would."""
    batcher = Batcher("cpu")
    batcher.batch = batch
    return batcher


def test_on_a_cpu_every_picture_travels_alone() -> None:
    """A result there never depends on its neighbours, whatever batch was asked for."""
    network = Network()
    with Batcher("cpu", 8) as batcher:
        tensors = [torch.full((3, 4, 4), float(n)) for n in range(5)]
        results = batcher.apply(network, tensors)
    assert [shape[0] for shape in network.seen] == [1] * 5
    for tensor, result in zip(tensors, results, strict=True):
        torch.testing.assert_close(result, tensor * 2)


def test_under_load_pictures_of_one_size_and_network_travel_together() -> None:
    """Threads that ask at once share batches up to the limit; sizes and networks are never mixed."""
    blocked, release = threading.Event(), threading.Event()

    def wait_at_first(_: Tensor) -> None:
        blocked.set()
        assert release.wait(PATIENCE)

    double, triple = Network(2, wait_at_first), Network(3)
    with batcher_of(4) as batcher, ThreadPoolExecutor(24) as pool:
        first = pool.submit(batcher.apply, double, [torch.zeros(3, 2, 2)])
        assert blocked.wait(PATIENCE)
        asked = []
        for number in range(20):
            network = triple if number % 5 == 4 else double
            side = 8 if number % 2 else 16
            tensor = torch.full((3, side, side), float(number))
            asked.append((network, tensor, pool.submit(batcher.apply, network, [tensor])))
        while len(batcher._requests) < 20:
            assert not first.done()
        release.set()
        for network, tensor, answer in asked:
            torch.testing.assert_close(answer.result(PATIENCE)[0], tensor * network.factor)
    sizes = [shape[0] for shape in double.seen[1:] + triple.seen]
    assert sum(sizes) == 20
    assert max(sizes) == 4
    assert len(sizes) == 6


def test_an_error_in_the_network_reaches_everyone_in_the_batch_and_nobody_else() -> None:
    """The batch's callers get the network's own exception; the device goes on."""

    def refuse(_: Tensor) -> None:
        raise ValueError("no such picture")

    with batcher_of(4) as batcher:
        with pytest.raises(ValueError, match="no such picture"):
            batcher.apply(Network(2, refuse), [torch.zeros(3, 2, 2)] * 3)
        assert len(batcher.apply(Network(), [torch.zeros(3, 2, 2)])) == 1


def test_tensors_of_different_sizes_come_back_in_the_order_they_were_given() -> None:
    """One call with many tensors gives one result each, in order."""
    tensors = [torch.full((1, 2 + n % 3, 2), float(n)) for n in range(9)]
    with batcher_of(2) as batcher:
        results = batcher.apply(Network(), tensors)
    for tensor, result in zip(tensors, results, strict=True):
        torch.testing.assert_close(result, tensor * 2)


def test_closing_ends_the_thread_and_refuses_what_comes_later() -> None:
    """After the block nothing is left running, and a late request is an error instead of a wait."""
    batcher = batcher_of(2)
    with batcher:
        batcher.apply(Network(), [torch.zeros(1, 2, 2)])
    assert not any(thread.is_alive() for thread in batcher._threads)
    with pytest.raises(RuntimeError, match="given back"):
        batcher.apply(Network(), [torch.zeros(1, 2, 2)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_device_whose_threads_end_answers_everybody(device: str) -> None:
    """Those who wait and those who come later get an error that names the device; nobody waits for ever."""
    with Batcher(device) as batcher, ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(batcher.apply, nn.Identity(), [torch.zeros(3, 8, 8)]) for _ in range(3)]
        errors = [one.exception(timeout=60) for one in asked]
        assert all(isinstance(error, DeviceError) and f"the device {device} stopped" in str(error) for error in errors)
        with pytest.raises(DeviceError, match="stopped working"):
            batcher.apply(nn.Identity(), [torch.zeros(3, 8, 8)])
