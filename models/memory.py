"""Giving memory back to the system between large pieces of work."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from typing import Any


def give_back() -> None:
    """Return freed memory to the system, where the C library would keep it (glibc); elsewhere nothing.

    Networks allocate blocks of some ten megabytes in many sizes and from several threads, and what glibc keeps of
    them for later came to 240 MB of 1,590 when a picture of 12 megapixels was compressed.
    """
    trim = _trim()
    if trim:
        trim(0)


@lru_cache(maxsize=1)
def _trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
