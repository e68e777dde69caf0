"""What other programs import of Darkroom: image sets developed, compressed, compared, explored, from Python.

    import darkroom

    summary = darkroom.develop("photos", "out", recipe="restore")
    darkroom.open_destination("out").table("metrics").to_table()

Nothing needs Prefect, and each name is loaded when it is first used. What goes wrong is a `DarkroomError`, whose
message says what to do. A step of one's own is a function with `@pixel_step`; see docs/python.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from darkroom.rooms import install

if TYPE_CHECKING:
    from darkroom import events
    from darkroom.calls import (
        assemble,
        collect,
        compress,
        compress_file,
        decompress,
        decompress_file,
        develop,
        evaluate,
        explore,
        forecast,
        generate,
        search,
        sweep,
        train,
        verify,
    )
    from models.errors import DarkroomError
    from pipeline.destination.reader import Destination, open_destination
    from pipeline.destination.run_record import Summary
    from pipeline.errors import PictureError, RecipeError, RequestError, StorageError
    from pipeline.pictures.picture import Picture
    from pipeline.runs.single_file import read_picture
    from pipeline.steps.registry import Parameters, pixel_step
    from pipeline.storage.access import StorageOptions

__all__ = [
    "DarkroomError",
    "Destination",
    "Parameters",
    "Picture",
    "PictureError",
    "RecipeError",
    "RequestError",
    "StorageError",
    "StorageOptions",
    "Summary",
    "assemble",
    "collect",
    "compress",
    "compress_file",
    "decompress",
    "decompress_file",
    "develop",
    "evaluate",
    "events",
    "explore",
    "forecast",
    "generate",
    "open_destination",
    "pixel_step",
    "read_picture",
    "search",
    "sweep",
    "train",
    "verify",
]

_HOMES = {
    "DarkroomError": "models.errors",
    "Destination": "pipeline.destination.reader",
    "Parameters": "pipeline.steps.registry",
    "Picture": "pipeline.pictures.picture",
    "PictureError": "pipeline.errors",
    "RecipeError": "pipeline.errors",
    "RequestError": "pipeline.errors",
    "StorageError": "pipeline.errors",
    "StorageOptions": "pipeline.storage.access",
    "Summary": "pipeline.destination.run_record",
    "open_destination": "pipeline.destination.reader",
    "pixel_step": "pipeline.steps.registry",
    "read_picture": "pipeline.runs.single_file",
}

install()

if not TYPE_CHECKING:  # for a type checker a module with __getattr__ has every name, mistyped ones too

    def __getattr__(name: str) -> Any:
        """Load a name of the face when it is first used (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module 'darkroom' has no attribute {name!r}")
        if name == "events":
            return import_module("darkroom.events")
        value = getattr(import_module(_HOMES.get(name, "darkroom.calls")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
