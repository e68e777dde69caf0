"""Restoration networks as methods of a suite: the networks of the pipeline's steps, on floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from models.cards import list_cards
from models.errors import ModelError
from models.inference import Apply, tiled
from models.onnx.runtime import load_network
from pipeline.errors import RequestError
from pipeline.networks.tiles import Network, network_for, open_network
from pipeline.storage.files import StoredFiles
from pipeline.suites.suite import Condition, Method, Spoiled, Suite, levels

_TILE = 512


@dataclass(frozen=True)
class Chosen:
    """A network for a task of the suite: the name on its card, and the name or URL that it was opened by."""

    name: str
    model: str
    task: str
    network: Network


def choose_networks(suite: Suite, names: Sequence[str]) -> list[Chosen]:
    """Choose the networks of those names or URLs, and the shipped ones of tasks that none of them is for.

    Raises RequestError for a model that is for no task of the suite, ModelError, StorageError.
    """
    tasks = list(dict.fromkeys(setting.task for setting in suite.settings))
    chosen = [_choose(name, tasks, suite) for name in names]
    missing = [task for task in tasks if task not in {each.task for each in chosen}]
    shipped = [open_chosen(card.name, task) for task in missing for card in list_cards() if card.task == task]
    return chosen + shipped


def network_methods(suite: Suite, networks: Sequence[Chosen], apply: Apply) -> list[Method]:
    """Make a method of every network and condition of the suite; networks of one name are told apart by their hash."""
    names = [each.name for each in networks]
    methods = []
    for each in networks:
        name = each.name if names.count(each.name) == 1 else each.network.model
        settings = tuple(setting.name for setting in suite.settings if setting.task == each.task)
        for condition in suite.conditions:
            methods.append(
                Method(
                    f"{name}-{condition.name}" if condition.name else name,
                    f"{name}, {condition.name}" if condition.name else name,
                    partial(_restore, each.network, condition, apply),
                    "network",
                    told=condition.told,
                    settings=settings,
                )
            )
    return methods


def _restore(network: Network, condition: Condition, apply: Apply, spoiled: Spoiled) -> np.ndarray:
    """Restore to uint8 of the size and channels of the truth.

    Grey goes in as three equal channels and comes out as their mean.
    """
    planes = torch.from_numpy(np.ascontiguousarray(spoiled.given.transpose(2, 0, 1))).expand(3, -1, -1)
    plane = condition.plane(spoiled)
    if plane is not None:
        planes = torch.cat([planes, torch.from_numpy(plane)[None]])
    restored = tiled(
        network_for(network, spoiled.given, 1.0),
        planes,
        apply,
        tile=_TILE,
        halo=network.reach,
        enlarge=network.scale,
        multiple=network.multiple,
    )
    height, width, channels = spoiled.clean.shape
    kept = restored[:, :height, :width].permute(1, 2, 0).numpy()
    return levels(np.ascontiguousarray(kept if channels == 3 else kept.mean(2, keepdims=True)))


def _choose(name: str, tasks: Sequence[str], suite: Suite) -> Chosen:
    told = []
    for task in tasks:
        try:
            return open_chosen(name, task)
        except ModelError as error:
            told.append(str(error))
    raise RequestError(f"the suite {suite.name} cannot use the model {name!r}: {told[0]}")


def open_chosen(model: str, task: str, sha256: str | None = None) -> Chosen:
    """Open a network by its name or URL, with weights of that hash, or any (None). Raises ModelError, StorageError."""
    card = load_network(model, task, files=StoredFiles(), sha256=sha256).card
    return Chosen(card.name, model, task, open_network(model, task, sha256=sha256))
