"""Files with something wrong: good ones with bits turned, parts cut, moved or doubled, and numbers that lie."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

_HEAD = 96
#: numbers that lengths, counts and offsets are least prepared for
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def mutated(files: Sequence[bytes], number: int) -> bytes:
    """The mutation of that number of some files of one format: always the same for the same number."""
    chance = random.Random(number)
    data = bytearray(chance.choice(files))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        chance.choice(_KINDS)(data, files, chance)
    return bytes(data)


def _flip_bits(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 3, 30))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set_bytes(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randrange(len(data))
    length = min(chance.choice((1, 2, 4, 16, 256)), len(data) - start)
    data[start : start + length] = chance.choice((b"\0" * length, b"\xff" * length, chance.randbytes(length)))


def _cut(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _cut_out(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.choice((1, 4, 64, 4096))]


def _double(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randrange(len(data))
    part = data[start : start + chance.choice((4, 64, 1024))]
    data[start:start] = part * chance.choice((1, 1, 40))


def _splice(data: bytearray, files: Sequence[bytes], chance: random.Random) -> None:
    other = chance.choice(files)
    start = chance.randrange(len(other)) if other else 0
    data[chance.randrange(len(data)) :] = other[start:]


def _change_header(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    """A number of one, two or four bytes near the beginning, of either order."""
    at, size = chance.randrange(min(_HEAD, len(data))), chance.choice((1, 2, 4))
    _put_number(data, at, size, chance)


def _change_number(data: bytearray, _: Sequence[bytes], chance: random.Random) -> None:
    """The same anywhere, where chunks, boxes, segments and directories have their lengths."""
    _put_number(data, chance.randrange(len(data)), chance.choice((2, 4)), chance)


def _put_number(data: bytearray, at: int, size: int, chance: random.Random) -> None:
    number = chance.choice(_NUMBERS) & ((1 << 8 * size) - 1)
    order = chance.choice("<>")
    packed = struct.pack(order + {1: "B", 2: "H", 4: "I"}[size], number)
    data[at : at + size] = packed[: len(data) - at]


_KINDS = (_flip_bits, _set_bytes, _cut, _cut_out, _double, _splice, _change_header, _change_header, _change_number)
