"""Where this checkout is, and the processes of this machine as Linux tells of them."""

from __future__ import annotations

from pathlib import Path

#: the repository's root, from where tests start processes and read documents
ROOT = Path(__file__).parents[1]


def workers_of(parent: int) -> list[int]:
    """The processes that a process has started through multiprocessing, such as Dask's workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if above == parent and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found
