"""Training by two processes that torchrun really started, over Gloo on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.errors import DistributedError
from models.files import PLAIN
from models.training.checkpoint import load_progress
from models.training.distributed import Ranks, own_device
from tests.processes import ROOT

COMMON = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from skimage import data as photographs
from models.training.data import TrainingSet, random_crops
from models.training.distributed import data_parallel, joined, ranks_from_environment
from models.training.tasks import TASKS
from models.training.loop import TrainingPlan, train

folder, ranks = Path(sys.argv[1]), ranks_from_environment()
torch.set_num_threads(1)
sizes = {"width": 16, "latents": 32, "down": 1, "up": 1, "hyper": 8}
pictures = TrainingSet([photographs.coffee(), photographs.chelsea()], [photographs.astronaut()[:256, :256]])

def run(name, stopped=lambda: False):
    settings = {"steps": 4, "batch": 2, "crop": 64, "validate_every": 2, "device": "cpu", "precision": "float32"}
    # what one process began, two go on with
    settings["new_chapter"] = True
    plan = TrainingPlan("codec", str(folder / f"{name}.safetensors"), sizes=sizes, **settings)
    return train(plan, pictures, stopped=stopped, ranks=ranks)
"""

TOGETHER = """
import numpy as np
from models.codec.network import CodecNetwork

def gradient(network, picture):
    quality = torch.full((len(picture),), 30.0)
    decoded, bpp, hyper_bpp = network(picture, quality, hard=True)
    (1000 * (decoded - picture).pow(2).mean() + (bpp + hyper_bpp).mean()).backward()

with joined(ranks, "cpu"):
    weights = run("whole")[0].state_dict()
    stops = iter([False, False, False])
    # only the first process may decide, whatever the others are asked
    run("interrupted", lambda: ranks.first and next(stops, True))
    run("interrupted")
    torch.manual_seed(ranks.rank)  # weights must become those of the first process
    network = CodecNetwork(**sizes)
    batch = random_crops(pictures.train, 4, 64, np.random.default_rng(1)).float().div(255)
    gradient(data_parallel(network, "cpu", ranks), batch[2 * ranks.rank :][:2])
save_file(weights, folder / f"weights{ranks.rank}.safetensors")
gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
save_file(gradients, folder / f"shared{ranks.rank}.safetensors")
network.zero_grad()
gradient(network, batch)
gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
save_file(gradients, folder / f"own{ranks.rank}.safetensors")
"""

#: each process has a disk of its own, and only the first one's holds the checkpoint
APART = """
from flows.command.exit_codes import guarded
folder = folder / str(ranks.rank)
if ranks.first:
    shared, ranks = ranks, type(ranks)()
    run("own", lambda stops=iter([False]): next(stops, True))
    ranks = shared

def work():
    with joined(ranks, "cpu"):
        run("own")
    return 0

sys.exit(guarded(work))
"""


def torchrun(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Two processes of a script."""
    path = folder / "script.py"
    path.write_text(COMMON + script)
    command = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(path), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left that trained undisturbed, trained interrupted, and shared one gradient."""
    folder = tmp_path_factory.mktemp("together")
    done = torchrun(TOGETHER, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr
    return folder


def test_two_processes_leave_one_checkpoint_and_have_the_same_weights(together: Path) -> None:
    first, second = (load_file(together / f"weights{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert sorted(path.name for path in together.glob("[wi]*.safetensors")) == [
        "interrupted.cooldown.safetensors", "interrupted.safetensors", "weights0.safetensors", "weights1.safetensors",
        "whole.cooldown.safetensors", "whole.safetensors",
    ]  # fmt: skip
    found = load_progress(str(together / "whole.safetensors"), "codec", PLAIN)
    assert found is not None
    assert (found[0].step, found[0].pictures) == (4, 4 * 2 * 2)
    assert all(torch.equal(found[1][f"average/{name}"], tensor) for name, tensor in first.items())


def test_an_interrupted_run_of_two_ends_like_an_undisturbed_one(together: Path) -> None:
    """Bit for bit: network, averages and moments."""
    whole, interrupted = (load_file(together / f"{name}.safetensors") for name in ("whole", "interrupted"))
    assert whole.keys() == interrupted.keys()
    assert all(torch.equal(whole[name], interrupted[name]) for name in whole)


def test_the_gradient_of_two_is_that_of_one_with_both_batches(together: Path) -> None:
    shared = [load_file(together / f"shared{rank}.safetensors") for rank in (0, 1)]
    alone = load_file(together / "own0.safetensors")
    scale = max(gradient.abs().max() for gradient in alone.values())
    for name, gradient in alone.items():
        assert torch.equal(shared[0][name], shared[1][name]), name
        torch.testing.assert_close(shared[0][name], gradient, rtol=1e-3, atol=1e-5 * scale.item())


def test_a_process_that_fails_ends_all_with_its_message(tmp_path: Path) -> None:
    done = torchrun(APART, tmp_path)
    assert done.returncode == 1
    assert "not every process can read the checkpoint" in done.stderr
    assert str(tmp_path / "1" / "own.safetensors") in done.stderr
    assert not (tmp_path / "1").exists()


def test_processes_that_would_share_a_gpu_are_told() -> None:
    with pytest.raises(DistributedError, match="cuda:0"):
        own_device("cuda:0", Ranks(0, 2, 0))
    with pytest.raises(DistributedError, match="nproc-per-node"):
        own_device("cuda", Ranks(99, 100, 99))
    assert own_device("cuda:1", Ranks()) == "cuda:1"
    assert own_device("cpu", Ranks(1, 2, 1)) == "cpu"
