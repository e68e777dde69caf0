"""Finds Darkroom's own packages, whatever else has their names, and starts modules of theirs as processes.

A folder that Python looks into first, such as that of a script, may hold a `models.py`, a `flows/` or a `pipeline/`.
`import darkroom` comes here before anything else, and from then on these names mean Darkroom's in that process.

    python -P .../darkroom/rooms.py MODULE ARGUMENTS...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
NAMES = ("darkroom", "flows", "models", "pipeline")


class _Finder:
    """A finder of Darkroom's packages, which looks for them where this file is, and nowhere else."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find one of `NAMES`; None for every other module, which Python then looks for as always."""
        return PathFinder.find_spec(name, [ROOT]) if name in NAMES else None


def install() -> None:
    """Let the names of Darkroom's packages mean them in this process, ahead of all that is on Python's path.

    Raises ImportError where another module of such a name is loaded already.
    """
    for name in NAMES:
        loaded = sys.modules.get(name)
        if loaded is not None and not _is_ours(name, loaded):
            where = getattr(loaded, "__file__", None) or "somewhere else"
            raise ImportError(
                f"Darkroom has a package `{name}`, but this program has loaded another one of that name, {where}; "
                "rename that, or run Darkroom in a process of its own: python -m darkroom",
                name=name,
            )
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def own_process(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of Darkroom in a process, beside whatever lies in its working directory."""
    return [sys.executable, "-P", os.path.join(ROOT, "darkroom", "rooms.py"), module, *arguments]


def _is_ours(name: str, loaded: ModuleType) -> bool:
    folders = [os.path.realpath(folder) for folder in getattr(loaded, "__path__", ())]
    return folders == [os.path.join(ROOT, name)]


if __name__ == "__main__":
    import runpy

    install()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
