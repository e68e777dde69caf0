"""Streams nobody wrote: random bytes, cut, mutated, and mutated ones whose head checksum was made to fit again.

python -m tests.models.codec.hostile COUNT SEED: prints what became of them, as JSON, with the CPU seconds of the
slowest and the growth of resident memory.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import zlib
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from skimage import data as photographs

from models.codec.bitstream import Stream, Tile, pack, read_header, unpack
from models.codec.codec import Codec, Still, compress, decompress
from models.errors import StreamError
from models.inference import apply_in_batches
from models.registry import load_model

apply = partial(apply_in_batches, device="cpu", batch=1)


def main(count: int, seed: int) -> None:
    """Decode `count` hostile streams and say how it went; anything but a picture or a StreamError ends the process."""
    torch.set_num_threads(1)
    model = load_model("codec-small", "codec")
    codec = Codec(model.network, model.card.name, bytes.fromhex(model.card.sha256[:32]))  # type: ignore[arg-type]
    generator = np.random.default_rng(seed)
    good = [compress(codec, still, quality, apply)[0] for still, quality in _stills()]
    pictures = [decompress(codec, data, apply) for data in good]
    outcomes: Counter[str] = Counter()
    slowest, before = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        which = int(generator.integers(len(good)))
        kind, data = _hostile(good[which], number, generator)
        started = time.process_time()
        try:
            still = decompress(codec, data, apply)
        except StreamError:
            outcomes[f"{kind}: refused"] += 1
        else:
            same = np.array_equal(still.colour, pictures[which].colour)
            outcomes[f"{kind}: {'the same picture' if same else 'another picture, its checksums hold'}"] += 1
        slowest = max(slowest, time.process_time() - started)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"outcomes": outcomes, "slowest_s": round(slowest, 3), "grown_mib": round(grown, 1)}))


def _stills() -> list[tuple[Still, int]]:
    picture = np.ascontiguousarray(photographs.coffee()[100:148, 100:180])
    alpha = picture[:, :, 0].copy()
    return [
        (Still(picture), 300),
        (Still(picture[:, :, :1].copy(), alpha, 16, b"profile", b"II*\0"), 900),
        (Still(picture[:1, :1].copy()), 16),
    ]


def _hostile(good: bytes, number: int, generator: np.random.Generator) -> tuple[str, bytes]:
    if number % 100 == 99:
        return "huge", _huge(good, generator)
    kind = ("random bytes", "cut", "mutated", "mutated and sealed")[number % 4]
    if kind == "random bytes":
        start = good[: int(generator.integers(0, 60))] if number % 8 else b""
        return kind, start + generator.bytes(int(generator.integers(0, 400)))
    if kind == "cut":
        return kind, good[: int(generator.integers(0, len(good)))]
    data = bytearray(good)
    layout = read_header(good)
    seal = layout.payload_start - 4
    # sealed streams reach the decoder, so most of their mutations are in what it reads
    for _ in range(int(generator.integers(1, 6))):
        data[int(generator.integers(4, seal if number % 8 == 7 else len(data)))] = int(generator.integers(0, 256))
    if kind == "mutated and sealed":
        data[seal : seal + 4] = zlib.crc32(bytes(data[:seal])).to_bytes(4, "little")
    return kind, bytes(data)


def _huge(good: bytes, generator: np.random.Generator) -> bytes:
    """A well-formed file that announces up to 178 million pixels and holds noise."""
    stream = unpack(good)
    height = int(generator.integers(1000, 13_300))
    header = replace(stream.header, width=13_300, height=height, tile=1024, grey=False)
    count = header.rows * header.columns
    tiles = [
        Tile(int(generator.integers(2**32)), generator.bytes(4 * int(generator.integers(0, 4)))) for _ in range(count)
    ]
    tiles[0] = Tile(1, generator.bytes(4 * int(generator.integers(100, 30_000))))
    return pack(Stream(header, tuple(tiles), None))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
