"""A restoration network as steps and suites run it: over whole pictures of any size, in tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.device import Runtime
from models.inference import Apply, tiled
from models.onnx.runtime import OnnxNetwork, load_network
from models.restoration import light
from models.restoration.network import RestorationNetwork
from pipeline.steps.arrays import white_level
from pipeline.storage.files import StoredFiles

#: pixels a side that a tile adds to the result of a network that keeps the size, and to the input of one that enlarges
_TILE, _TILE_ENLARGED = 896, 512


@dataclass(frozen=True)
class Network:
    """A module, and what must be known to run it in tiles.

    `run` takes N x 3 x h x w float32 in 0..1, or N x 4 x h x w with the condition as last plane, and gives N x 3 x
    (scale h) x (scale w). A network that `samples` needs a sample of the whole picture first: see `network_for`.
    `model` is name@hash, `weights` the whole SHA-256 of the file.
    """

    run: nn.Module
    samples: bool
    model: str
    weights: str
    scale: int
    reach: int
    multiple: int


def open_network(name_or_url: str | None, task: str, runtime: Runtime = "auto", sha256: str | None = None) -> Network:
    """Open the network of a step; its module is one object however many steps use it.

    `sha256` is the hash that the weights must have; None: whatever lies there is taken. Raises ModelError,
    StorageError.
    """
    model = load_network(name_or_url or f"{task}-small", task, runtime, StoredFiles(), sha256)
    network = cast(RestorationNetwork | OnnxNetwork, model.network)
    return Network(
        _planes(network),
        network.condition == "sample",
        model.tag,
        model.card.sha256,
        network.scale,
        network.reach,
        network.multiple,
    )


@lru_cache(maxsize=16)
def _planes(network: RestorationNetwork | OnnxNetwork) -> _Planes:
    """Return one object for one network, for pictures travel in one batch only through the same object."""
    return _Planes(network)


class _Planes(nn.Module):
    """A network behind one tensor, channels last: on CPUs, too, its convolutions are 1.2 times faster that way."""

    def __init__(self, network: RestorationNetwork | OnnxNetwork):
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, planes: Tensor) -> Tensor:
        """Apply the network to N x 3 x h x w planes, or N x 4 x h x w with the condition as last plane."""
        planes = planes.contiguous(memory_format=torch.channels_last)
        return self.network(planes[:, :3], planes[:, 3:] if planes.shape[1] > 3 else None)


class _Sampled(nn.Module):
    """A network and the sample, 1 x 3 x 64 x 64, of the one picture whose tiles it is given."""

    def __init__(self, planes: _Planes, sampled: Tensor):
        super().__init__()
        self.network = planes.network
        self.sampled = nn.Buffer(sampled)

    def forward(self, picture: Tensor) -> Tensor:
        """Apply the network to N x 3 x h x w tiles of the picture."""
        return self.network(picture, self.sampled.expand(len(picture), -1, -1, -1))


def network_for(network: Network, pixels: np.ndarray, white: float) -> nn.Module:
    """Return the module that restores tiles of this picture, H x W x 1|3 with values of 0..white."""
    if not network.samples:
        return network.run
    assert isinstance(network.run, _Planes)
    rows, columns = (light.grid(side) for side in pixels.shape[:2])
    picked = pixels[np.ix_(rows, columns)].astype(np.float32) / np.float32(white)
    sampled = torch.from_numpy(picked).permute(2, 0, 1)[None]
    return _Sampled(network.run, sampled.expand(1, 3, -1, -1))


def restore(
    network: Network,
    pixels: np.ndarray,
    apply: Apply,
    strength: float = 1.0,
    condition: float | np.ndarray | None = None,
    sampled: np.ndarray | None = None,
) -> np.ndarray:
    """Restore pixels (H x W x 1|3, uint8|uint16) with a network: channels and dtype kept, sides times its scale.

    `condition` is a number for the whole picture or a mask, bool H x W, of pixels that are missing and not looked at.
    `strength` mixes the result with the input, enlarged by bicubic interpolation where the network enlarges. A network
    that samples does so from the pixels `sampled`, if others are given.
    """
    height, width, channels = pixels.shape
    white = white_level(pixels)
    if strength == 0 and network.scale == 1:
        return pixels.copy(order="C")
    planes = pixels
    if isinstance(condition, np.ndarray):
        planes = np.concatenate([pixels, condition[:, :, None].astype(pixels.dtype) * white], axis=2)

    def before(window: np.ndarray) -> Tensor:
        values = torch.from_numpy(window.astype(np.float32) / white)
        parts = [values[:channels].expand(3, -1, -1), values[channels:]]
        if isinstance(condition, float):
            parts.append(torch.full_like(values[:1], condition))
        return torch.cat(parts)

    def after(restored: Tensor, window: Tensor) -> Tensor:
        restored = restored.clamp(0, 1)
        if strength < 1:
            restored = torch.lerp(_enlarged(window[:3], network.scale), restored, strength)
        restored = restored.mean(0, keepdim=True) if channels == 1 else restored
        levels = (restored.clamp(0, 1) * white).round()
        return levels.to(torch.uint8 if pixels.dtype == np.uint8 else torch.uint16)

    result = tiled(
        network_for(network, pixels if sampled is None else sampled, white),
        planes.transpose(2, 0, 1),
        apply,
        tile=_TILE if network.scale == 1 else _TILE_ENLARGED,
        halo=network.reach,
        enlarge=network.scale,
        multiple=network.multiple,
        before=before,
        after=after,
    )
    whole = result.permute(1, 2, 0).numpy()[: height * network.scale, : width * network.scale]
    return np.ascontiguousarray(whole)


def enlarge_alpha(network: Network, alpha: np.ndarray, apply: Apply, strength: float) -> np.ndarray:
    """Enlarge alpha (h x w x 1) as a grey picture, kept between its neighbours: no ringing beside an edge."""
    plane = np.ascontiguousarray(alpha[:, :, 0])
    size = (plane.shape[1] * network.scale, plane.shape[0] * network.scale)
    low, high = (
        cv2.resize(near(plane, np.ones((3, 3), np.uint8)), size, interpolation=cv2.INTER_NEAREST)
        for near in (cv2.erode, cv2.dilate)
    )
    if (low == high).all():
        return low[:, :, None]
    larger = restore(network, np.ascontiguousarray(alpha), apply, strength)
    return np.clip(larger, low[:, :, None], high[:, :, None])


def _enlarged(values: Tensor, scale: int) -> Tensor:
    if scale == 1:
        return values
    return F.interpolate(values[None], scale_factor=scale, mode="bicubic", align_corners=False)[0]
