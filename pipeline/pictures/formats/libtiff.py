"""What libtiff says while Pillow decodes: gathered for the row, and kept from the terminal.

libtiff prints its errors to standard error, some without giving up: a line of a fax that cannot be decoded is only
said there. Pillow leaves that as it is, so a function of ours is set, once, in the library that Pillow has loaded.
Where none is found, all is as libtiff does it.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import PIL

_LONGEST = 300
_MOST = 20
# private tags that libtiff cannot store are nothing to the pixels
_OF_TAGS = (b"TIFFFetch", b"TIFFReadDirectory", b"TIFFReadCustomDirectory", b"_TIFFVSetField")

_heard = threading.local()


@contextmanager
def listening() -> Iterator[list[str]]:
    """Gather what libtiff says in this thread, at most 20 lines."""
    _listen()
    lines: list[str] = []
    _heard.lines = lines
    try:
        yield lines
    finally:
        _heard.lines = []


@cache
def _listen() -> Any:
    """Set our function as that of libtiff's errors; return it, which keeps it alive."""
    root = Path(PIL.__file__).parent
    found = [*root.glob(".dylibs/libtiff*"), *root.parent.glob("[pP]illow.libs/libtiff*")]
    name = str(found[0]) if found else ctypes.util.find_library("tiff")
    try:
        library, system = ctypes.CDLL(name), ctypes.CDLL(None)
        kind = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        setter, into_text = library.TIFFSetErrorHandler, system.vsnprintf
    except (OSError, AttributeError, TypeError):
        return None
    into_text.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    def note(module: bytes | None, form: bytes | None, values: int | None) -> None:
        lines = getattr(_heard, "lines", None)
        of_tags = (module or b"").startswith(_OF_TAGS)
        if lines is not None and len(lines) < _MOST and form is not None and not of_tags:
            text = ctypes.create_string_buffer(_LONGEST)
            into_text(text, _LONGEST, form, values)
            lines.append(text.value.decode("utf-8", "replace").strip().rstrip("."))

    function = kind(note)
    setter.argtypes, setter.restype = [kind], ctypes.c_void_p
    setter(function)
    return function
