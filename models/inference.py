"""Running a network over pictures: device, batches of equal size, tiles for large pictures, running out of memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: a module, or whatever else maps N x C x h x w to the like, such as a session of another runtime
Network = Callable[[Tensor], Tensor]
#: gives each tensor (C x h x w, CPU, float32, all of one size) through a network; results likewise
Apply = Callable[[Network, Sequence[Tensor]], list[Tensor]]

_placing = threading.Lock()

#: pixels of one picture in flight at a time, and windows at most
_PIXELS, _WINDOWS = 3_000_000, 8


def apply_in_batches(network: Network, pictures: Sequence[Tensor], device: str = "cpu", batch: int = 1) -> list[Tensor]:
    """Run equal-sized C x h x w tensors through a network in batches; running out of memory halves the batch.

    On a GPU: half precision and channels_last. On a CPU a batch of 1 keeps results independent of their neighbours.
    Raises torch.OutOfMemoryError only when a single picture does not fit.
    """
    done: list[Tensor] = []
    while len(done) < len(pictures):
        part = pictures[len(done) : len(done) + batch]
        try:
            done += _forward(network, torch.stack(list(part)), device)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            torch.cuda.empty_cache()
            batch = max(1, batch // 2)
    return done


def tiled(
    network: Network,
    picture: Tensor | np.ndarray,
    apply: Apply,
    *,
    tile: int,
    halo: int,
    enlarge: int = 1,
    reduce: int = 1,
    multiple: int = 1,
    before: Callable[[Any], Tensor] = torch.as_tensor,
    after: Callable[[Tensor, Tensor], Tensor] = lambda result, window: result,
) -> Tensor:
    """Run C x H x W through a network in equal windows of tile + 2 * halo, keeping each window's inside.

    `before` makes float32 of a window of the picture, and `after` what is kept of its result (it is given both), so
    that a large picture never exists in float32 as a whole. The network's output is `enlarge` / `reduce` times its
    input's size; the sides are taken as the next multiples of `multiple`, the last row and column repeated; tile and
    halo are multiples of `reduce` and `multiple`. The result holds whole rows of pixels, H' x W' x C' in memory.
    With a halo of the network's reach this equals running it whole. Pictures up to one window go whole.
    """
    height, width = (-(-side // multiple) * multiple for side in picture.shape[-2:])
    rows, columns = _spans(height, tile, halo), _spans(width, tile, halo)
    scale = enlarge / reduce
    result: Tensor | None = None
    places = [(row, column) for row in rows for column in columns]
    side = (tile + 2 * halo) * max(1, enlarge)
    flight = max(1, min(_WINDOWS, _PIXELS // side**2))
    for start in range(0, len(places), flight):
        part = places[start : start + flight]
        windows = [
            _padded(before(picture[:, y0:y1, x0:x1]), y1 - y0, x1 - x0) for (y0, y1, _, _), (x0, x1, _, _) in part
        ]
        outs = apply(network, windows)
        for ((y0, _, top, bottom), (x0, _, left, right)), window, out in zip(part, windows, outs, strict=True):
            kept = after(out, window)
            if result is None:
                shape = (round(height * scale), round(width * scale), kept.shape[0])
                result = torch.empty(shape, dtype=kept.dtype).permute(2, 0, 1)
            t, b, le, r = (round(v * scale) for v in (top, bottom, left, right))
            oy, ox = round(y0 * scale), round(x0 * scale)
            result[:, t:b, le:r] = kept[:, t - oy : b - oy, le - ox : r - ox]
    assert result is not None
    return result


def _padded(window: Tensor, height: int, width: int) -> Tensor:
    """Repeat the last row and column of C x h x w until it is height x width."""
    bottom, right = height - window.shape[-2], width - window.shape[-1]
    return F.pad(window[None], (0, right, 0, bottom), mode="replicate")[0] if bottom or right else window


def _spans(length: int, tile: int, halo: int) -> list[tuple[int, int, int, int]]:
    """Cut one side into windows: (start, end, first kept, end of kept). All of one length; the last is moved inside."""
    window = tile + 2 * halo
    if length <= window:
        return [(0, length, 0, length)]
    spans = []
    for first in range(0, length, tile):
        start = min(max(0, first - halo), length - window)
        spans.append((start, start + window, first, min(first + tile, length)))
    return spans


@torch.no_grad()
def _forward(network: Network, batch: Tensor, device: str) -> list[Tensor]:
    if device.startswith("cuda") and isinstance(network, nn.Module):
        _place(network, device)
        batch = batch.pin_memory().to(device, non_blocking=True).to(memory_format=torch.channels_last)
        # as fast as bfloat16 and eight times finer: a denoiser loses 0.000 dB in the one and 0.013 dB in the other
        with torch.autocast("cuda", dtype=torch.float16):
            result = network(batch).float()
        answer = torch.empty(result.shape, pin_memory=True).copy_(result, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return list(answer)
    return list(network(batch))


def _place(network: nn.Module, device: str) -> None:
    """Move a network's weights to the device, once, whichever of several threads comes first."""
    with _placing:
        first = next(network.parameters(), None)
        if first is None or first.device.type != "cuda":
            network.to(device).to(memory_format=torch.channels_last)
            # the other threads' streams must not read weights that are still on their way
            torch.cuda.synchronize(device)
