"""Libraries of formats that are extras: imported where a picture needs them, else what to do instead."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pipeline.errors import PictureError


def library(module: str, otherwise: str) -> Any:
    """Import a module. Raises PictureError (`unsupported`), which says `otherwise`, where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise PictureError("unsupported", otherwise) from error
