"""How fast the codec is beside its peers: encode and decode whole pictures in memory, alternately, one by one.

    python -m tests.benchmarks.codec_speed KODAK [--peer-python PYTHON_WITH_COMPRESSAI] [--out RESULTS.json]

Ours at quality 32 (the file in memory to pixels and back, head, checksums and entropy coding included), AVIF at speed 6
(4:4:4) at a like rate, and, given a Python that has compressai, bmshj2018-hyperprior and mbt2018-mean at quality 4.
`--threads` cores each (default 2). Also says which share of decoding is entropy coding.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import time
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from models.codec import tile as tile_module
from models.codec.codec import Codec, Still, compress, decompress
from models.codec.entropy_coder import Reader
from models.inference import apply_in_batches
from models.registry import load_model

Times = dict[str, list[tuple[float, float]]]


class _TimedReader(Reader):
    """A reader that adds up what reading symbols takes."""

    seconds = 0.0

    def take(self, count, table):  # type: ignore[no-untyped-def]
        return self._timed(super().take, count, table)

    def take_levels(self, levels, tables):  # type: ignore[no-untyped-def]
        return self._timed(super().take_levels, levels, tables)

    @staticmethod
    def _timed(read, *arguments):  # type: ignore[no-untyped-def]
        started = time.perf_counter()
        try:
            return read(*arguments)
        finally:
            _TimedReader.seconds += time.perf_counter() - started


@click.command()
@click.argument("kodak", type=click.Path(exists=True, path_type=Path))
@click.option("--peer-python", help="Python interpreter of an environment with compressai")
@click.option("--threads", default=2)
@click.option("--device", default="cpu")
@click.option("--out", type=click.Path(path_type=Path))
def main(kodak: Path, peer_python: str | None, threads: int, device: str, out: Path | None) -> None:
    """Time every picture below KODAK."""
    torch.set_num_threads(threads)
    model = load_model("codec-small", "codec")
    codec = Codec(model.network, model.card.name, bytes.fromhex(model.card.sha256[:32]))  # type: ignore[arg-type]
    apply = partial(apply_in_batches, device=device, batch=8)
    peer = _start_peer(peer_python, threads) if peer_python else None
    times: Times = {}
    entropy: list[float] = []
    paths = sorted(kodak.glob("*.png"))
    for path in [paths[0], *paths]:
        pixels = np.array(Image.open(path).convert("RGB"))
        found = {"darkroom": _ours(codec, pixels, apply, entropy), "AVIF speed 6": _avif(pixels)}
        if peer:
            found |= _ask(peer, path)
        for name, pair in found.items():
            times.setdefault(name, []).append(pair)
    # the first picture warmed everything up
    times = {name: pairs[1:] for name, pairs in times.items()}
    results = _summary(times, entropy[1:])
    _show(results)
    if out:
        out.write_text(json.dumps(results, indent=2) + "\n")


def _ours(codec: Codec, pixels: np.ndarray, apply, entropy: list[float]) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    data, _ = compress(codec, Still(pixels), 16 * 32, apply)
    encoded = time.perf_counter()
    decompress(codec, data, apply)
    seconds = encoded - started, time.perf_counter() - encoded
    # once more, to see how much of it is entropy coding; the timing itself would slow the first
    _TimedReader.seconds = 0.0
    plain, tile_module.Reader = tile_module.Reader, _TimedReader  # type: ignore[misc]
    started = time.perf_counter()
    decompress(codec, data, apply)
    entropy.append(_TimedReader.seconds / (time.perf_counter() - started))
    tile_module.Reader = plain  # type: ignore[misc]
    return seconds


def _avif(pixels: np.ndarray) -> tuple[float, float]:
    buffer = io.BytesIO()
    started = time.perf_counter()
    Image.fromarray(pixels).save(buffer, "AVIF", quality=55, speed=6, subsampling="4:4:4")
    encoded = time.perf_counter()
    np.array(Image.open(buffer))
    return encoded - started, time.perf_counter() - encoded


def _start_peer(python: str, threads: int) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("codec_peer.py")
    peer = subprocess.Popen(
        [python, str(script), str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert peer.stdout
    if peer.stdout.readline().strip() != "ready":
        raise click.ClickException(f"{python} could not load compressai")
    return peer


def _ask(peer: subprocess.Popen[str], path: Path) -> dict[str, tuple[float, float]]:
    assert peer.stdin
    assert peer.stdout
    peer.stdin.write(f"{path}\n")
    peer.stdin.flush()
    return {name: (pair[0], pair[1]) for name, pair in json.loads(peer.stdout.readline()).items()}


def _summary(times: Times, entropy: list[float]) -> dict:
    rows = {}
    for name, pairs in times.items():
        against = [ours[1] / theirs[1] for ours, theirs in zip(times["darkroom"], pairs, strict=True)]
        rows[name] = {
            "pictures": len(pairs),
            "encode_s": statistics.median(pair[0] for pair in pairs),
            "decode_s": statistics.median(pair[1] for pair in pairs),
            "our_decode_time_in_units_of_theirs": statistics.median(against),
        }
    return {"codecs": rows, "entropy_share_of_decoding": statistics.median(entropy)}


def _show(results: dict) -> None:
    table = Table(title="medians over pictures", title_justify="left")
    for heading in ("codec", "encode s", "decode s", "our decode time / theirs"):
        table.add_column(heading, justify="left" if heading == "codec" else "right")
    for name, row in results["codecs"].items():
        numbers = (row["encode_s"], row["decode_s"], row["our_decode_time_in_units_of_theirs"])
        table.add_row(name, *(f"{number:.3f}" for number in numbers))
    console = Console()
    console.print(table)
    console.print(f"entropy coding is {results['entropy_share_of_decoding']:.1%} of our decoding")


if __name__ == "__main__":
    main()
