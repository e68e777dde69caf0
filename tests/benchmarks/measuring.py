"""What the benchmarks share: photographs to work on, and a fresh process whose peak memory can be read."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured(Generic[Result]):
    """What a function gave in a process of its own, its wall time (imports aside) and the process's peak memory."""

    result: Result
    seconds: float
    peak: int


def in_fresh_process(
    function: Callable[..., Result], *arguments: Any, limit_s: float | None = None
) -> Measured[Result]:
    """Call a module's function in a new interpreter, so that its peak memory is its own.

    Raises TimeoutError, the process killed, when it takes longer than `limit_s`.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, function, arguments).result(limit_s)
        except TimeoutError:
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _measure(function: Callable[..., Result], arguments: tuple) -> Measured[Result]:
    started = time.perf_counter()
    result = function(*arguments)
    return Measured(result, time.perf_counter() - started, peak_memory())


def peak_memory() -> int:
    """Most bytes this process has held in memory."""
    try:
        # on Linux ru_maxrss begins with what the parent held when it forked
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def photographs() -> list[np.ndarray]:
    """Colour photographs that come with scikit-image, BGR."""
    from skimage import data

    names = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
    return [np.ascontiguousarray(getattr(data, name)()[:, :, ::-1]) for name in names]


def write_photographs(folder: Path, count: int, width: int = 1200, height: int = 832) -> None:
    """`count` different JPEGs of one size, quality 92: random crops of the photographs; the same each time."""
    sources = photographs()
    for number in range(count):
        rng = np.random.default_rng(number)
        source = sources[number % len(sources)]
        crop_width = int(rng.uniform(0.6, 1) * min(source.shape[1], source.shape[0] * width / height))
        crop_height = crop_width * height // width
        top = rng.integers(source.shape[0] - crop_height + 1)
        left = rng.integers(source.shape[1] - crop_width + 1)
        crop = source[top : top + crop_height, left : left + crop_width]
        picture = cv2.resize(crop, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
