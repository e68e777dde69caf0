"""A second decoder of tiles, written from docs/format.md alone in plain integers, agrees with the codec's own."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch

from models.codec.frozen import FrozenCodec, freeze
from models.codec.tile import encode_tile
from tests.models.codec.make_golden import small_network

Weights = dict[str, np.ndarray]
SHIFTS = {"first": 6, "embed": 6, "level": 12}
CLIPS = {"embed": (-255, 255), "mean": (-16368, 16368), "level": (0, 63)}
CLASSES = ((0, 0), (0, 1), (1, 0), (1, 1))


class Stack:
    """The coder of "Entropy coding"; tables are (low, entries)."""

    def __init__(self, payload: bytes):
        self.words = list(struct.unpack(f"<{len(payload) // 4}I", payload))
        self.state = 0
        self.refill()

    def refill(self) -> None:
        while self.state < 2**32 and self.words:
            self.state = self.state * 2**32 + self.words.pop()

    def pop(self, low: int, entries: np.ndarray) -> tuple[int, bool]:
        """A symbol, and whether it is the escape."""
        r = self.state % 2**24
        ends = np.cumsum(256 * entries)
        index = int(np.argmax(r < ends))
        f = 256 * int(entries[index])
        s = int(ends[index]) - f
        self.state = (self.state >> 24) * f + r - s
        self.refill()
        return low + index, index == len(entries) - 1


def layer(weights: Weights, name: str, x: np.ndarray, extra: np.ndarray | int = 0) -> np.ndarray:
    weight, bias = weights[f"{name}_weight"], weights[f"{name}_bias"]
    shift = SHIFTS.get(name, 10)
    low, high = CLIPS.get(name, (0, 255))
    if weight.shape[-1] == 1:
        total = np.einsum("oi,ihw->ohw", weight[:, :, 0, 0], x)
    else:
        k = weight.shape[-1]
        padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(1, 2))
        total = np.einsum("cij,chwij->chw", weight[:, 0], windows)
    return np.clip((total + bias[:, None, None] + extra + 2 ** (shift - 1)) >> shift, low, high)


def at_quality(table: np.ndarray, sixteenths: int) -> np.ndarray:
    lower = min(sixteenths // 16, 63)
    part = sixteenths - 16 * lower
    return (((16 - part) * table[lower - 1] + part * table[lower] + 8) >> 4)[:, None, None]


def shuffle(x: np.ndarray) -> np.ndarray:
    channels, height, width = x.shape
    result = np.empty((channels // 4, 2 * height, 2 * width), np.int64)
    for i in range(2):
        for j in range(2):
            result[:, i::2, j::2] = x[2 * i + j :: 4]
    return result


def decode(weights: Weights, payload: bytes, sixteenths: int, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Hyper latents, symbols and values of a tile of height x width latents."""
    stack = Stack(payload)
    z, m = weights["first_weight"].shape[1], weights["mean_weight"].shape[0]
    tables = weights["hyper_tables"].reshape(16, z, 64)[(sixteenths // 16 - 1) // 4]
    hyper = np.empty((z, -(-height // 4), -(-width // 4)), np.int64)
    for place in np.ndindex(*hyper.shape):
        hyper[place], escape = stack.pop(-31, tables[place[0]])
        assert not escape

    x = shuffle(layer(weights, "first", hyper, at_quality(weights["first_quality"], sixteenths)))
    x = shuffle(layer(weights, "second", layer(weights, "second_mix", x)))
    features = layer(weights, "third_mix", x)[:, :height, :width]

    ends = np.cumsum(weights["level_sizes"])
    level_tables = [weights["level_tables"][end - n : end] for n, end in zip(weights["level_sizes"], ends, strict=True)]
    symbols = np.zeros((m, height, width), np.int64)
    values = np.zeros_like(symbols)
    for step in range(4):
        embedded = layer(weights, "embed", np.clip(symbols, -31, 31))
        around = layer(weights, "around", embedded)
        extra = np.empty((weights["join_step"].shape[2], height, width), np.int64)
        for c, (row, column) in enumerate(CLASSES):
            extra[:, row::2, column::2] = weights["join_step"][step, c][:, None, None]
        joined = layer(weights, "join", np.concatenate([features, around, np.maximum(embedded, 0)]), extra)
        means = layer(weights, "mean", joined)
        levels = layer(weights, "level", joined, at_quality(weights["level_quality"], sixteenths))
        listed = [
            (channel, y, x)
            for c, (row, column) in enumerate(CLASSES)
            for channel in range((step + c) % 4, m, 4)
            for y in range(row, height, 2)
            for x in range(column, width, 2)
        ]
        escaped = []
        for place in sorted(listed, key=lambda place: levels[place]):
            symbols[place], escape = stack.pop(int(weights["level_lows"][levels[place]]), level_tables[levels[place]])
            if escape:
                escaped.append(place)
        byte = np.array([255] * 256 + [256])
        high, low = ([stack.pop(0, byte)[0] for _ in escaped] for _ in range(2))
        for place, a, b in zip(escaped, list(high), list(low), strict=True):
            symbols[place] = 256 * a + b - 32768
        for place in listed:
            shrink = np.sign(symbols[place]) * weights["shrink"][levels[place]]
            values[place] = 16 * symbols[place] + means[place] - shrink
    assert stack.state == 0
    assert not stack.words
    return hyper, symbols, np.clip(values, -32768, 32767)


@pytest.fixture(scope="module")
def frozen() -> FrozenCodec:
    return freeze(small_network(), [torch.rand(3, 64, 96)])


@pytest.mark.parametrize(
    ("quality", "height", "width", "size"),
    [(16, 1, 1, 1), (384, 7, 10, 1), (391, 4, 3, 40), (392, 6, 9, 1), (1023, 3, 2, 1), (1024, 5, 8, 900)],
)
def test_the_documented_arithmetic_gives_the_codecs_symbols(
    frozen: FrozenCodec, quality: int, height: int, width: int, size: float
) -> None:
    """Odd sizes, qualities between whole ones, large latents that need escapes."""
    generator = torch.Generator().manual_seed(quality)
    latents = size * torch.randn(20, height, width, generator=generator) / frozen.gain(quality)[:, None, None]
    payload, code = encode_tile(frozen, latents, quality)
    weights = {name: tensor.numpy() for name, tensor in frozen.state_dict().items()}
    weights = {name: array.astype(np.int64) for name, array in weights.items() if array.dtype.kind == "i"}
    hyper, symbols, values = decode(weights, payload, quality, height, width)
    np.testing.assert_array_equal(hyper, code.hyper)
    np.testing.assert_array_equal(symbols, code.symbols)
    np.testing.assert_array_equal(values, code.values)
    assert code.crc32 == zlib.crc32(hyper.astype("i1").tobytes() + symbols.astype("<i2").tobytes())
    if size == 900:
        assert np.abs(symbols).max() > 400
    if height > 1:
        assert len(np.unique(hyper)) > 1
