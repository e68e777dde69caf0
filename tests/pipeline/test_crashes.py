"""Pictures that end the process that develops them: found, named, and the rest of their shard lands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.begun import begun_path, read_begun
from pipeline.picture import TRANSIENT_REASONS
from pipeline.plan import plan_run
from pipeline.run import develop
from pipeline.storage import open_store, write
from tests.runs import command, commits, fill, request, table, tables

RECIPE = {"branches": {"gamma": [{"step": "gamma"}]}, "output": {"format": "png"}}
REASONS = "key, branch, stage, reason"

#: loaded by every interpreter that finds it on its path: a decoder that ends the process at one picture
DEADLY = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "pipeline.develop":
            sys.meta_path.remove(self)
            import pipeline.decode as module
            honest = module.decode
            def decode(data, key="", *others):
                if key == os.environ["DEADLY_KEY"]:
                    {how}
                return honest(data, key, *others)
            module.decode = decode

sys.meta_path.insert(0, Finder())
"""
HOW = {
    "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "exit status 3": "os._exit(3)",
}


def run(arguments: list[object], folder: Path, how: str, key: str) -> int:
    """Exit status of the command where `key` is deadly."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(DEADLY.format(how=HOW[how]))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    environment |= {"DEADLY_KEY": key}
    return subprocess.run(
        command(*arguments), env=environment, capture_output=True, timeout=240, check=False
    ).returncode


@pytest.mark.parametrize("how", ["SIGSEGV", *(pytest.param(how, marks=pytest.mark.slow) for how in list(HOW)[1:])])
def test_a_deadly_picture_is_found_and_the_rest_of_its_shard_lands(how: str, tmp_path: Path) -> None:
    """The first run dies. The second finds which picture it was, names the signal, and completes."""
    source, out = fill(tmp_path / "source", 8), tmp_path / "out"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    arguments: list[object] = ["develop", source, out, "--recipe", recipe, "--shard-size", 4, "--workers", 2]
    arguments += ["--no-prefect", "--device", "cpu"]
    assert run(arguments, tmp_path / "hook", how, "003.png") not in (0, 1, 2)
    assert run(arguments, tmp_path / "hook", how, "003.png") == 0
    assert table(out, "failures", REASONS) == [("003.png", None, "decode", "crashed")]
    assert how in table(out, "failures", "message")[0][0]
    assert len(table(out, "metrics", "key")) == 7
    assert sum(commit["good"] for commit in commits(out)) == 7
    assert list(out.glob("runs/*/begun/*")) == []
    assert develop(request(source, out, RECIPE)).status == "nothing_to_do"


def test_healthy_suspects_are_developed_like_all_others(tmp_path: Path) -> None:
    """A run that was killed while all was well: nothing is taken for a crash, no trace of the attempt is left."""
    source, out = fill(tmp_path / "source", 4), tmp_path / "out"
    asked = request(source, out, RECIPE, shard_size=4)
    plan = plan_run(asked)
    write(open_store(out), begun_path(plan.run, 0), b'{"suspects": [0, 2, 99], "crashed": {}}')
    assert develop(asked).counts["good"] == 4
    develop(request(source, tmp_path / "whole", RECIPE, shard_size=4))
    assert tables(out) == tables(tmp_path / "whole")
    assert list(out.glob("runs/*/begun/*")) == []


def test_what_is_known_to_crash_is_never_tried_again(tmp_path: Path) -> None:
    """Killed once more after the verdict: the picture stays a failure, though its file may be healthy."""
    source, out = fill(tmp_path / "source", 3), tmp_path / "out"
    asked = request(source, out, RECIPE)
    plan = plan_run(asked)
    write(open_store(out), begun_path(plan.run, 0), b'{"suspects": [], "crashed": {"1": "SIGSEGV, says the last"}}')
    assert develop(asked).reasons == {"crashed": 1}
    assert table(out, "failures", "message") == [("SIGSEGV, says the last",)]
    assert "crashed" not in TRANSIENT_REASONS


def test_a_run_that_ends_in_order_suspects_nobody(tmp_path: Path) -> None:
    """Stopped between pictures: the next run need not look for a culprit."""
    source, out = fill(tmp_path / "source", 8), tmp_path / "out"
    asked = request(source, out, RECIPE, shard_size=8)

    def stop(_: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        develop(asked, progress=stop)
    assert read_begun(open_store(out), plan_run(asked).run, 0).suspects == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"suspects": []}', b"\xff"])
def test_a_foreign_object_in_its_place_suspects_nobody(content: bytes, tmp_path: Path) -> None:
    """Whatever lies there, the run goes on."""
    store = open_store(tmp_path)
    write(store, begun_path("r1", 0), content)
    begun = read_begun(store, "r1", 0)
    assert (begun.suspects, begun.crashed) == ([], {})
