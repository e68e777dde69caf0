"""A picture that ends whatever process decodes it: a hook that every interpreter loads which finds it on its path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.processes import ROOT

_HOOK = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "pipeline.shards.picture":
            sys.meta_path.remove(self)
            import pipeline.pictures.decode as module
            honest = module.decode
            def decode(data, key="", *others):
                if key == os.environ["DEADLY_KEY"]:
                    {how}
                return honest(data, key, *others)
            module.decode = decode

sys.meta_path.insert(0, Finder())
"""
#: ways to end, by what is said of them
HOW = {
    "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "exit status 3": "os._exit(3)",
}


def deadly(folder: Path, key: str, how: str = "SIGSEGV") -> dict[str, str]:
    """The environment of processes that end when they decode the picture of that key; the hook lies in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_HOOK.format(how=HOW[how]))
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "DEADLY_KEY": key}


def deadly_to_others(patch: pytest.MonkeyPatch, folder: Path, key: str, how: str = "SIGSEGV") -> None:
    """Let the picture of that key end the processes for suspects that this one starts, and not this one."""
    deadly(folder, key, how)
    # they are given our path
    patch.syspath_prepend(folder)
    patch.setenv("DEADLY_KEY", key)
