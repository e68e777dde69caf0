"""Checkpoints: everything a training run needs to go on, as one safetensors object at any fsspec URL."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from models.files import StorageArguments, locate, write_bytes


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message names it and says why."""


@dataclass
class Progress:
    """How far a training run has come. Scores: lower is better."""

    task: str
    step: int = 0
    seconds: float = 0.0
    pictures: int = 0
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(
    url: str,
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    storage: StorageArguments,
) -> None:
    """Write network, moving average, best average so far (inside `average`), Adam's moments and progress."""
    tensors = {f"network/{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in average.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{k}": v for k, v in state.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    write_bytes(url, save(tensors, metadata={"progress": json.dumps(asdict(progress))}), storage)


def load_checkpoint(
    url: str,
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    task: str,
    storage: StorageArguments,
) -> Progress | None:
    """Fill the given objects from a checkpoint and return its progress; None when there is none at the URL.

    Raises CheckpointError when the object is no checkpoint of this task and these sizes.
    """
    fs, path = locate(url, storage)
    if not fs.exists(path):
        return None
    data = fs.cat_file(path)
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        progress = Progress(**json.loads(header["__metadata__"]["progress"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{url} is not a Darkroom checkpoint ({error}); give another URL or delete it") from error
    if progress.task != task:
        raise CheckpointError(f"{url} is a checkpoint of {progress.task!r}, not of {task!r}; give another URL")
    try:
        network.load_state_dict(_below(tensors, "network/"))
        average.load_state_dict(_below(tensors, "average/"))
    except RuntimeError as error:
        raise CheckpointError(f"{url} holds a network of other sizes; give another URL or the same sizes") from error
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimiser/").items():
        index, key = name.split("/")
        moments.setdefault(int(index), {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})
    return progress


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
