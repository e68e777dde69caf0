"""A camera raw by the book: a DNG of uncompressed samples behind a Bayer filter, with a thumbnail of other content."""

from __future__ import annotations

import struct

import numpy as np

from tests.picture_files import save, smooth


def dng(
    colour: tuple[int, int, int] = (9000, 18000, 5000), height: int = 64, width: int = 96, turned: int = 1
) -> bytes:
    """An even surface, as red, green and blue of a sensor that is white at 60,000; the thumbnail is another."""
    red, green, blue = colour
    sensor = np.empty((height, width), np.uint16)
    sensor[::2, ::2], sensor[::2, 1::2], sensor[1::2, ::2], sensor[1::2, 1::2] = red, green, green, blue
    thumbnail = smooth(16, 24, 3)
    matrix = (3.2404542, -1.5371385, -0.4985314, -0.9692660, 1.8760108, 0.0415560, 0.0556434, -0.2040259, 1.0572252)
    main = {
        254: (4, [1]),
        256: (4, [24]),
        257: (4, [16]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [2]),
        271: (2, b"Darkroom\0"),
        272: (2, b"Tests\0"),
        273: (4, [0]),
        274: (3, [turned]),
        277: (3, [3]),
        278: (4, [16]),
        279: (4, [thumbnail.nbytes]),
        284: (3, [1]),
        330: (4, [0]),
        50706: (1, [1, 4, 0, 0]),
        50708: (2, b"Darkroom Tests\0"),
        50721: (10, [part for value in matrix for part in (round(value * 10000), 10000)]),
        50728: (5, [1, 1, 1, 1, 1, 1]),
        50778: (3, [21]),
    }
    raw = {
        254: (4, [0]),
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [16]),
        259: (3, [1]),
        262: (3, [32803]),
        273: (4, [0]),
        277: (3, [1]),
        278: (4, [height]),
        279: (4, [sensor.nbytes]),
        284: (3, [1]),
        33421: (3, [2, 2]),
        33422: (1, [0, 1, 1, 2]),
        50714: (4, [0]),
        50717: (4, [60000]),
    }
    start = 8
    pixels = [thumbnail.tobytes(), sensor.astype("<u2").tobytes()]
    main[273], start = (4, [start]), start + len(pixels[0])
    raw[273], start = (4, [start]), start + len(pixels[1])
    raw_directory, main_at = _directory(raw, start), start + len(_directory(raw, start))
    main[330] = (4, [start])
    return b"II*\0" + struct.pack("<I", main_at) + b"".join(pixels) + raw_directory + _directory(main, main_at)


def _directory(tags: dict[int, tuple[int, list[int] | bytes]], at: int) -> bytes:
    codes = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 10: "i"}
    table, tail = struct.pack("<H", len(tags)), b""
    lists = at + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        value = struct.pack(f"<{len(values)}{codes[kind]}", *values)
        if len(value) > 4:
            place = lists + len(tail)
            tail += value + b"\0" * (len(value) % 2)
            value = struct.pack("<I", place)
        count = len(values) // 2 if kind in (5, 10) else len(values)
        table += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return table + bytes(4) + tail + b"\0" * (len(tail) % 2)


def raw_names() -> dict[str, bytes]:
    """Beginnings of camera raws of several makers, by the names of files; none of them can be developed."""
    preview = save(_preview(), "TIFF")
    return {
        "a.cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99),
        "a.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(99),
        "a.raf": b"FUJIFILMCCD-RAW 0201" + bytes(99),
        "a.orf": b"IIRO\x08\0\0\0" + bytes(99),
        "a.rw2": b"IIU\0\x18\0\0\0" + bytes(99),
        "a.x3f": b"FOVb" + bytes(99),
        "a.mrw": b"\0MRM" + bytes(99),
        # whose first directory is an ordinary picture, a preview
        "a.nef": preview,
        "A.ARW": preview,
    }


def _preview():  # type: ignore[no-untyped-def]
    from tests.picture_files import picture

    return picture(3)
