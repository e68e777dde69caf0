"""Trains the same start with each optimiser and rate on one thread: what a CPU second brings, and what a step costs.

`python -m tests.benchmarks.optimisers PICTURES --task codec --start FILE --rates adamw=5e-4 --rates muon=1e-3` prints a
table. Rates are constant after a warm-up; the last 15 % of the steps fall linearly to zero. Two scores are
taken on held-out pictures: of the moving average before that cooldown, and of the weights after it. Seconds are CPU
time of the training alone, so other load on the machine does not count as such. What a step costs beside AdamW's is
measured apart, steps of both in turns. A run's row is kept in `--results` (JSON Lines); one that is there is not run
again. Peak memory is that of the process, pictures and all.
"""

from __future__ import annotations

import copy
import gc
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from models.files import PLAIN
from models.training.checkpoint import load_start
from models.training.data import PictureSource, read_training_set
from models.training.optimisers import build_optimiser, matrices
from models.training.precision import autocast, memory_format
from models.training.schedule import average_decay
from models.training.small_batches import SmallTrainingSet
from models.training.small_pictures import split_by_name
from models.training.tasks import Task, task_of
from pipeline.training.picture_sets import read_picture_set
from tests.benchmarks.small_autoencoders import console, print_rows

#: share of the steps over which the rate falls to zero
COOLDOWN = 0.15
WARM_UP = 100
WEIGHT_DECAY = 1e-4
#: steps of each optimiser that are timed in turns
TIMED = 20


@dataclass(frozen=True)
class Run:
    """What makes one run another than the others."""

    task: str
    start: str
    optimiser: str
    rate: float
    steps: int
    batch: int
    crop: int
    precision: str
    seed: int


class Training:
    """A network on its way: steps of one run, each on crops drawn from seed and number alone."""

    def __init__(self, run: Run, task: Task, start: Path | None, sizes: dict[str, Any], pictures: PictureSource):
        torch.manual_seed(run.seed)
        self.run, self.task, self.pictures, self.step = run, task, pictures, 0
        self.network = task.build(**sizes)
        if start:
            load_start(str(start), self.network, PLAIN)
        self.form = torch.channels_last if task.channels_last else memory_format(run.precision, "cpu")
        self.network.to(memory_format=self.form)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimiser = build_optimiser(run.optimiser, _groups(self.network), WEIGHT_DECAY)

    def take(self, share: float) -> float:
        """One step at a share of the run's rate; returns its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.run.rate * group["factor"] * share * min(1.0, (self.step + 1) / WARM_UP)
        torch.manual_seed((self.run.seed << 32) + self.step)
        drawn = self.pictures.draw(self.run.batch, self.run.crop, np.random.default_rng([self.run.seed, self.step]))
        picture = drawn.float().div(255).to(memory_format=self.form)
        self.task.begin_step(self.network, self.step, bool(self.run.start))
        with autocast(self.run.precision, "cpu"):
            loss, _ = self.task.loss(self.network, picture)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        decay = average_decay(self.step, bool(self.run.start))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
        return loss.item()

    def score(self, network: nn.Module) -> float:
        """The held-out score, lower is better."""
        held_out = self.pictures.held_out_batches(self.task.held_out_crop)
        network.eval()
        with torch.no_grad():
            scores = [self.task.score(network, batch.float().div(255))[0] for batch in held_out]
        network.train()
        return torch.cat(scores).mean().item()


@click.command()
@click.argument("pictures", nargs=-1, required=True)
@click.option("--task", "task_name", default="codec")
@click.option("--start", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="weights to begin from")
@click.option("--steps", default=1000)
@click.option("--rates", "rates", multiple=True, required=True, help="OPTIMISER=RATE, with several rates by commas")
@click.option("--batch", type=int, help="default: the task's own")
@click.option("--crop", type=int, help="default: the task's own")
@click.option("--precision", default="float32", type=click.Choice(["float32", "bfloat16"]))
@click.option("--seed", default=0)
@click.option("--sizes", default="{}", help="of the network, in JSON")
@click.option("--results", type=click.Path(path_type=Path), default=Path("optimisers.jsonl"), help="rows, kept")
@click.option("--cost/--no-cost", default=True, help="measure what a step costs beside AdamW's")
def main(
    pictures: tuple[str, ...],
    task_name: str,
    start: Path | None,
    steps: int,
    rates: tuple[str, ...],
    batch: int | None,
    crop: int | None,
    precision: str,
    seed: int,
    sizes: str,
    results: Path,
    cost: bool,
) -> None:
    """Compare optimisers and rates on a task; see the module."""
    torch.set_num_threads(1)
    task, network_sizes = task_of(task_name), json.loads(sizes)
    runs = [
        Run(
            task_name,
            start.name if start else "",
            name,
            float(rate),
            steps,
            batch or task.batch,
            crop or task.crop,
            precision,
            seed,
        )
        for name, _, listed in (pair.partition("=") for pair in rates)
        for rate in listed.split(",")
    ]
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    source: PictureSource | None = None
    rows = []
    for run in runs:
        row = next((row for row in done if row["run"] == asdict(run)), None)
        if row is None:
            source = source or _read(task, pictures, network_sizes)
            row = {"run": asdict(run)} | _carry_out(run, task, start, network_sizes, source, cost)
            with results.open("a") as kept:
                kept.write(json.dumps(row) + "\n")
        rows.append(_shown(row))
    print_rows(f"{task_name}, {steps} steps of {runs[0].batch} x {runs[0].crop} px, {precision}, one thread", rows)


def _carry_out(
    run: Run, task: Task, start: Path | None, sizes: dict[str, Any], source: PictureSource, cost: bool
) -> dict[str, Any]:
    _forget_peak()
    training = Training(run, task, start, sizes, source)
    begun = training.score(training.average)
    seconds, cooldown_at, losses, flat = 0.0, round(run.steps * (1 - COOLDOWN)), [], begun
    for step in range(run.steps):
        if step == cooldown_at:
            flat = training.score(training.average)
        clock = time.process_time()
        losses.append(training.take(min(1.0, (run.steps - step) / max(1, run.steps - cooldown_at))))
        seconds += time.process_time() - clock
        if step % 100 == 99:
            recent = statistics.mean(losses[-100:])
            console.print(f"[dim]{run.optimiser} {run.rate:g}: step {step + 1}, loss {recent:.5g}, {seconds:.0f} s[/]")
    found = {
        "start": begun,
        "before cooldown": flat,
        "after cooldown": training.score(training.network),
        "average after": training.score(training.average),
        "cpu seconds": round(seconds, 1),
        "peak MiB": round(_memory("VmHWM") / 1024),
    }
    return found | ({"step cost": _cost(run, task, start, sizes, source)} if cost else {})


def _cost(run: Run, task: Task, start: Path | None, sizes: dict[str, Any], source: PictureSource) -> float:
    """CPU seconds of a step beside those of AdamW's on the same crops: means of steps taken in turns."""
    both = [
        Training(Run(**asdict(run) | {"optimiser": name}), task, start, sizes, source)
        for name in ("adamw", run.optimiser)
    ]
    spent: list[list[float]] = [[], []]
    for _ in range(2 + TIMED):
        for training, times in zip(both, spent, strict=True):
            clock = time.process_time()
            training.take(1.0)
            times.append(time.process_time() - clock)
    # the first steps build their state; SOAP renews its bases at every tenth, so tens are taken
    peer, own = (statistics.mean(times[2:]) for times in spent)
    return round(own / peer, 3)


def _groups(network: nn.Module) -> list[dict[str, Any]]:
    """A group a parameter, with the factor that the network wants for its rate."""
    factors, among_matrices = getattr(network, "learning_rates", {}), matrices(network)
    return [
        {
            "params": [(name, parameter)],
            "factor": next((f for prefix, f in factors.items() if name.startswith(prefix)), 1.0),
            "matrix": name in among_matrices,
        }
        for name, parameter in network.named_parameters()
    ]


def _read(task: Task, pictures: tuple[str, ...], sizes: dict[str, Any]) -> PictureSource:
    if task.multiple:
        return read_training_set(pictures)
    return SmallTrainingSet(*split_by_name(read_picture_set(pictures, tuple(sizes["shape"]), train=True), 0.05))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    run = row["run"]
    gain = {
        name: 100 * (row[name] - row["start"]) / abs(row["start"]) for name in ("before cooldown", "after cooldown")
    }
    return {
        "what": f"{run['optimiser']} {run['rate']:g}",
        "start": row["start"],
        "average before cooldown": row["before cooldown"],
        "after cooldown": row["after cooldown"],
        "% before": f"{gain['before cooldown']:+.2f}",
        "% after": f"{gain['after cooldown']:+.2f}",
        "CPU s": row["cpu seconds"],
        "step / AdamW's": row.get("step cost"),
        "peak MiB": row["peak MiB"],
    }


def _forget_peak() -> None:
    """Begin the process's peak of memory anew (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def _memory(name: str) -> int:
    """KiB by a name of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
