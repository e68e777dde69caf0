"""How fast every restoration network is, beside DnCNN, FFDNet, DRUNet and OpenCV's non-local means.

    python -m tests.benchmarks.restoration_speed [--threads 1] [--device cpu|cuda] [--side 256] [--out RESULTS.json]

All compute the same number of pixels of output (`--side` squared), alternately in one process, random weights, and each
in every way it can be run. Megapixels are of output; figures are medians over rounds; `x DnCNN` is DnCNN's time, run
the fastest way, over the own time of the same round. On a CPU also by the seconds of CPU that this process used, which
other programs disturb less. On a GPU also what half precision costs, in dB of PSNR against float32, for the tasks whose
weights are shipped.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from models.cards import list_cards
from models.onnx.export import CONDITION, PICTURE, RESTORED
from models.onnx.runtime import OnnxNetwork
from models.registry import load_model
from models.restoration.light import sample
from models.restoration.tasks import RESTORATIONS, Restoration, build
from models.training.precision import autocast
from tests.benchmarks.measuring import photographs
from tests.benchmarks.peer_networks import DnCNN, DRUNet, FFDNet

PEERS = {"DnCNN": DnCNN, "FFDNet": FFDNet, "DRUNet": DRUNet}
OPENCV = "OpenCV non-local means"
#: pictures a batch on a GPU
BATCH = 16


@dataclass(frozen=True)
class Contestant:
    """A network run in one way. `run` computes `pixels` of output."""

    network: str
    way: str
    parameters: int
    pixels: int
    run: Callable[[], object]


@click.command()
@click.option("--threads", default=1)
@click.option("--device", default="cpu")
@click.option("--side", default=256, help="pixels a side of what every network gives")
@click.option("--rounds", default=4, help="times everything is run; the first warms up and does not count")
@click.option("--task", "tasks", multiple=True, type=click.Choice(list(RESTORATIONS)), help="default: all")
@click.option("--onnx/--no-onnx", default=True, help="also under onnxruntime, on a CPU")
@click.option("--compile/--no-compile", "compiled", default=True, help="also compiled, on a GPU")
@click.option("--out", type=click.Path(path_type=Path))
@torch.inference_mode()
def main(
    threads: int,
    device: str,
    side: int,
    rounds: int,
    tasks: tuple[str, ...],
    onnx: bool,
    compiled: bool,
    out: Path | None,
) -> None:
    """Time every network in every way it can be run."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    torch.manual_seed(0)
    networks: dict[str, tuple[nn.Module, int]] = {
        name: (build(RESTORATIONS[name]).eval(), side // RESTORATIONS[name].scale) for name in tasks or RESTORATIONS
    }
    networks |= {name: (peer().eval(), side) for name, peer in PEERS.items()}
    contestants = [_opencv(side)] if device == "cpu" else []
    for name, (network, inputs) in networks.items():
        contestants += _on_cpu(name, network, inputs, onnx) if device == "cpu" else []
        contestants += _on_gpu(name, network, inputs, device, compiled) if device != "cpu" else []
    results = {
        "machine": torch.cuda.get_device_name(device) if device != "cpu" else f"{os.cpu_count()} cores",
        "threads": threads,
        "side": side,
        "rounds": rounds - 1,
        "load": os.getloadavg()[0],
        "rows": _rows(contestants, _times(contestants, rounds, device)),
    }
    if device != "cpu":
        results["cost_of_half_precision_db"] = {
            f"{name}, {precision}": _cost(name, precision, device)
            for name in networks
            if any(card.task == name for card in list_cards())
            for precision in ("bfloat16", "float16")
        }
    _show(results)
    if out:
        out.write_text(json.dumps(results, indent=2) + "\n")


def _on_cpu(name: str, network: nn.Module, side: int, onnx: bool) -> list[Contestant]:
    inputs = _inputs(network, 1, side)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs_last = [tensor.contiguous(memory_format=torch.channels_last) for tensor in inputs]
    ways: dict[str, Callable[[], object]] = {
        "torch": lambda: network(*inputs),
        "torch, channels last": lambda: last(*inputs_last),
    }
    if onnx:
        session = _session(network, inputs)
        ways["onnxruntime"] = lambda: session(*inputs)
    return _contestants(name, network, inputs, ways)


def _on_gpu(name: str, network: nn.Module, side: int, device: str, compiled: bool) -> list[Contestant]:
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = [tensor.to(device, memory_format=torch.channels_last) for tensor in _inputs(network, BATCH, side)]
    compiling = {"": network} | ({", compiled": torch.compile(network)} if compiled else {})

    def way(network: Callable, precision: str) -> Callable[[], object]:
        def run() -> object:
            with autocast(precision, device):
                return network(*inputs)

        return run

    ways = {
        f"{precision}{how}": way(made, precision)
        for precision in ("float32", "bfloat16", "float16")
        for how, made in compiling.items()
    }
    return _contestants(name, network, inputs, ways)


def _contestants(
    name: str, network: nn.Module, inputs: list[torch.Tensor], ways: dict[str, Callable[[], object]]
) -> list[Contestant]:
    count, _, height, width = inputs[0].shape
    pixels = count * height * width * getattr(network, "scale", 1) ** 2
    parameters = sum(weights.numel() for weights in network.parameters())
    return [Contestant(name, way, parameters, pixels, run) for way, run in ways.items()]


def _inputs(network: nn.Module, count: int, side: int) -> list[torch.Tensor]:
    picture = torch.rand(count, 3, side, side)
    condition = getattr(network, "condition", None)
    plane = torch.rand(count, 1, side, side)
    told = {"mask": (plane < 0.25).float(), "level": plane, "sample": sample(picture)}
    return [picture, told[condition]] if condition else [picture]


def _session(network: nn.Module, inputs: list[torch.Tensor]) -> OnnxNetwork:
    """For this one size, which is the best that onnxruntime can be given."""
    program = torch.onnx.export(
        network,
        tuple(inputs),
        dynamo=True,
        input_names=[PICTURE, CONDITION][: len(inputs)],
        output_names=[RESTORED],
        verbose=False,
    )
    assert program is not None
    return OnnxNetwork(program.model_proto.SerializeToString(), "level" if len(inputs) > 1 else None, 1, 0, 1)


def _opencv(side: int) -> Contestant:
    noisy = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Contestant(
        OPENCV, "7 x 7 in 21 x 21", 0, side**2, lambda: cv2.fastNlMeansDenoisingColored(noisy, None, 20, 20, 7, 21)
    )


def _times(contestants: list[Contestant], rounds: int, device: str) -> dict[str, list[list[float]]]:
    """Seconds by the wall's clock, and of CPU, of every contestant in every round but the first."""
    clocks: dict[str, Callable[[], float]] = {"wall": time.perf_counter}
    clocks |= {"cpu": time.process_time} if device == "cpu" else {}
    times: dict[str, list[list[float]]] = {clock: [[] for _ in contestants] for clock in clocks}
    for _ in range(rounds):
        for number, contestant in enumerate(contestants):
            started = {clock: now() for clock, now in clocks.items()}
            contestant.run()
            if device != "cpu":
                torch.cuda.synchronize(device)
            for clock, now in clocks.items():
                times[clock][number].append(now() - started[clock])
    return {clock: [seconds[1:] for seconds in every] for clock, every in times.items()}


def _rows(contestants: list[Contestant], times: dict[str, list[list[float]]]) -> list[dict]:
    rows = [
        {"network": one.network, "way": one.way, "parameters": one.parameters, "pixels": one.pixels}
        for one in contestants
    ]
    for clock, every in times.items():
        per_pixel = [[value / one.pixels for value in seconds] for one, seconds in zip(contestants, every, strict=True)]
        dncnn = [found for one, found in zip(contestants, per_pixel, strict=True) if one.network == "DnCNN"]
        reference = min(dncnn, key=statistics.median)
        for row, found in zip(rows, per_pixel, strict=True):
            row[f"megapixels_per_{clock}_s"] = 1e-6 / statistics.median(found)
            ratios = [theirs / ours for theirs, ours in zip(reference, found, strict=True)]
            row[f"times_dncnn_by_{clock}"] = statistics.median(ratios)
    return rows


def _cost(name: str, precision: str, device: str) -> float:
    """By how many dB the mean PSNR of photographs' crops falls when the shipped network computes in half precision."""
    task = RESTORATIONS[name]
    card = next(card for card in list_cards() if card.task == name)
    network = copy.deepcopy(load_model(card.name, name).network).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    spoiled, clean = _spoiled(task, device)
    exact = _psnr(network(*spoiled), clean)
    with autocast(precision, device):
        return exact - _psnr(network(*spoiled).float(), clean)


def _spoiled(task: Restoration, device: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    crops = [photograph[:240, :240, ::-1] for photograph in photographs()]
    clean = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div(255).to(device)
    spoiled = task.scored(clean, torch.Generator(device).manual_seed(0))
    return [spoiled.picture] + ([] if spoiled.condition is None else [spoiled.condition]), spoiled.clean


def _psnr(restored: torch.Tensor, clean: torch.Tensor) -> float:
    levels = (restored * 255).round().clamp(0, 255)
    return float((-10 * ((levels - clean * 255) / 255).pow(2).mean((1, 2, 3)).log10()).mean())


def _show(results: dict) -> None:
    title = (
        f"{results['machine']}, {results['threads']} threads, {results['side']} x {results['side']} pixels of output"
    )
    table = Table(title=title, title_justify="left")
    clocks = ("wall", "cpu") if "megapixels_per_cpu_s" in results["rows"][0] else ("wall",)
    table.add_column("network")
    table.add_column("parameters", justify="right")
    table.add_column("run by")
    for clock in clocks:
        table.add_column(f"MP/s {clock}", justify="right")
        table.add_column("x DnCNN", justify="right")
    for row in results["rows"]:
        parameters = f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] else ""
        numbers = [
            cell
            for clock in clocks
            for cell in (f"{row[f'megapixels_per_{clock}_s']:.3f}", f"{row[f'times_dncnn_by_{clock}']:.2f}")
        ]
        table.add_row(row["network"], parameters, row["way"], *numbers)
    console = Console(width=110)
    console.print(table)
    for name, cost in results.get("cost_of_half_precision_db", {}).items():
        console.print(f"{name}: {cost:+.4f} dB less than float32")


if __name__ == "__main__":
    main()
