"""Training by several processes that `torchrun` started: who is who, one decision for all, one gradient for all."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.errors import DistributedError


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together: `rank` of `count`, and `local` among those on this machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """True for the one process that validates, reports and writes."""
        return self.rank == 0


ALONE = Ranks()


def ranks_from_environment() -> Ranks:
    """Read what `torchrun` says of this process; a lone process where it was not started by it."""
    told = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    ranks = Ranks(*(int(value) for value in told if value is not None)) if all(told) else ALONE
    return ranks if ranks.count > 1 else ALONE


def own_device(device: str, ranks: Ranks) -> str:
    """Choose the device of this process: of several, each gets a GPU of its own.

    Raises DistributedError when there are fewer GPUs than processes or all would share one.
    """
    if ranks.count == 1 or device == "cpu":
        return device
    if device != "cuda":
        raise DistributedError(f"{ranks.count} processes cannot train on {device} together; ask for cuda or cpu")
    found = torch.cuda.device_count()
    if ranks.local >= found:
        raise DistributedError(f"every process needs a GPU of its own and there are {found}; lower --nproc-per-node")
    return f"cuda:{ranks.local}"


@contextmanager
def joined(ranks: Ranks, device: str) -> Iterator[None]:
    """Let the processes talk while inside: gradients over NCCL on GPUs and Gloo on CPUs, decisions over Gloo.

    When another process leaves, what this one waits for fails; that is told as a DistributedError.
    """
    if ranks.count == 1:
        yield
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        raise DistributedError(f"process {ranks.rank} lost another one, whose own message says why") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def data_parallel(network: nn.Module, device: str, ranks: Ranks) -> nn.Module:
    """Wrap the network so that gradients are means over all processes; weights become those of the first process."""
    if ranks.count == 1:
        return network
    # depthwise kernels, with one input channel, have two equal ways of telling their strides
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(network, device_ids=[device] if device.startswith("cuda") else None)


def agree(values: list[float], ranks: Ranks) -> list[float]:
    """Return the first process's values, in every process."""
    if ranks.count == 1:
        return values
    shared = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(shared, 0)
    return shared.tolist()
