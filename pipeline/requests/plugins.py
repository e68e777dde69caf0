"""Steps that other installed packages add, through entry points of the group `darkroom.steps`.

An entry point names a module, or a function without parameters, that registers steps as `pipeline.steps.registry`
describes. A package adds all of its steps or none: one that cannot be loaded, or has a name that is taken, is told in a
line, and everything else goes on.
"""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version

from pipeline.steps.registry import StepNameError, registering

GROUP = "darkroom.steps"
#: what each package that adds no steps was told
faults: list[str] = []
_MOST_LETTERS = 300
_log = logging.getLogger("darkroom.steps")


def load_plugins() -> None:
    """Register the steps of installed packages, in the order of their names; log what is wrong with each that fails."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (_package(entry), entry.name)):
        try:
            with registering(_package(entry), entry.module.partition(".")[0]):
                loaded = entry.load()
                if callable(loaded):
                    loaded()
        # whatever its code raises is its author's mistake, and must not end the work of ours
        except (Exception, SystemExit) as error:
            faults.append(f"{_package(entry)} adds no steps: {_in_a_line(error)}; mend it or uninstall it")
            _log.warning("%s", faults[-1])


def installed_version(package: str) -> str | None:
    """Return the version of a package that is installed here, None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _in_a_line(error: BaseException) -> str:
    words = " ".join(str(error).split()) or "it ends the process"
    text = words if isinstance(error, StepNameError) else f"{type(error).__name__}: {words}"
    return "".join(letter for letter in text if letter.isprintable())[:_MOST_LETTERS]


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
