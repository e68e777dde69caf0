"""What models there are, and how one is loaded: a table of names, safetensors weights, a JSON card beside each."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from models.autoencoders import build_autoencoder
from models.cards import WEIGHTS, Card, list_cards, read_card
from models.codec.frozen import FrozenCodec
from models.errors import ModelError, TooLargeError
from models.files import PLAIN, Files
from models.restoration.network import RestorationNetwork
from models.restoration.tasks import RESTORATIONS

T = TypeVar("T")
#: a weights file larger than this is refused before it is read
SIZE_LIMIT = 1 << 30


@dataclass(frozen=True)
class Model:
    """Weights in a network, in eval mode, on the CPU unless moved, with the card that describes them."""

    network: nn.Module
    card: Card

    @property
    def tag(self) -> str:
        """Name of the model, `@` and the first 12 digits of its weights' hash, as written in tables."""
        return f"{self.card.name}@{self.card.sha256[:12]}"


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "codec": FrozenCodec,
    "autoencoder": build_autoencoder,
    **dict.fromkeys(RESTORATIONS, RestorationNetwork),
}


def load_model(name_or_url: str, task: str | None = None, files: Files = PLAIN, sha256: str | None = None) -> Model:
    """Load a shipped model by name, or any by the URL of its safetensors file (its card is the .json beside it).

    `files` read what lies at a URL, and may raise errors of their own where that is refused. `sha256` is the hash that
    the weights must have, 64 hexadecimal digits; None: whatever lies there is taken. Weights that are loaded already
    are not loaded twice; without `sha256` their file is read all the same, for it may have been replaced. Raises
    ModelError when there is none, it is for another task, its bytes do not match its card, or are others than `sha256`.
    """
    url = name_or_url
    if "/" not in url and "\\" not in url and not url.endswith(".safetensors"):
        url = str(WEIGHTS / f"{name_or_url}.safetensors")
        if not Path(url).exists():
            names = ", ".join(card.name for card in list_cards() if task in (None, card.task)) or "none"
            wanted = f"for {task!r} there is" if task else "there are"
            raise ModelError(f"there is no model called {name_or_url!r}; {wanted}: {names}")
    kept = (_LOADED.get(url, sha256) if sha256 else None) or _read(url, files, sha256)
    if task not in (None, kept.card.task):
        raise ModelError(f"the model at {url} is for {kept.card.task!r}, not for {task!r}")
    return kept


def save_model(url: str, network: nn.Module, card: Card, files: Files = PLAIN) -> Card:
    """Write weights, in half precision, and their card to URL.safetensors and URL.json.

    Returns the card as it was written, with the hash and the number of parameters filled in. Raises what `files` raise.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    data = save(tensors, metadata={"task": card.task})
    count = sum(p.numel() for p in network.parameters())
    card = Card(**(asdict(card) | {"sha256": hashlib.sha256(data).hexdigest(), "parameters": count}))
    stem = url.removesuffix(".safetensors")
    files.write(f"{stem}.safetensors", data)
    files.write(f"{stem}.json", (json.dumps(asdict(card), indent=2) + "\n").encode())
    return card


class Loaded(Generic[T]):
    """The last few things that were made of files, by what names the file and by the hash of its bytes."""

    def __init__(self, most: int = 16):
        self._most = most
        self._made: OrderedDict[tuple[str, ...], T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, *key: str) -> T | None:
        """Return what was kept under a key, None where it is no longer there."""
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
            return self._made.get(key)

    def keep(self, made: T, *key: str) -> T:
        """Keep and return one more under a key, in place of what was there; the longest unused one goes."""
        with self._lock:
            self._made[key] = made
            self._made.move_to_end(key)
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        return made


_LOADED = Loaded[Model]()


def check_hash(url: str, found: str, planned: str | None) -> None:
    """Raise ModelError, which names both, where the bytes that were read of a file are not those that were planned."""
    if planned not in (None, found):
        raise ModelError(
            f"planned are the weights {str(planned)[:12]}, but those at {url} are {found[:12]} now; put the planned "
            "file back there, or begin a run with those that are there"
        )


def _read(url: str, files: Files, planned: str | None) -> Model:
    data = fetch(url, files)
    found = hashlib.sha256(data).hexdigest()
    check_hash(url, found, planned)
    card = read_card(fetch(url.removesuffix(".safetensors") + ".json", files).decode(errors="replace"), url)
    if found != card.sha256:
        raise ModelError(f"the weights at {url} do not match the SHA-256 on their card; copy both files again")
    kept = _LOADED.get(url, found)
    if kept is not None and kept.card == card:
        return kept
    try:
        tensors = load(data)
        network = NETWORKS[card.task](**card.sizes)
        network.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
        if isinstance(network, FrozenCodec):
            network.check()
    except (SafetensorError, RuntimeError, TypeError, KeyError, ValueError) as error:
        raise ModelError(f"the weights at {url} do not fit the sizes on their card: {error}") from error
    return _LOADED.keep(Model(network.eval().requires_grad_(False), card), url, found)


def fetch(url: str, files: Files = PLAIN) -> bytes:
    """Read the bytes of a model's file. Raises ModelError when there is none, it is too large, or it cannot be read."""
    try:
        data = files.read(url, SIZE_LIMIT)
    except TooLargeError as error:
        raise ModelError(f"{error}; give a file of weights, or its card") from error
    except OSError as error:
        raise ModelError(f"the model at {url} could not be read: {error}") from error
    if data is None:
        raise ModelError(f"no model at {url}: it does not exist; check the spelling")
    return data


def half_precision(network: nn.Module) -> nn.Module:
    """Round every floating-point weight of a network, in place, to half precision, in which `save_model` stores it."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(torch.float16))
    return network
