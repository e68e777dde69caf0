"""ICC profiles made from what files say of colours in other ways (ICC.1:2001-04, version 2.4)."""

from __future__ import annotations

import struct

import numpy as np

from pipeline.pictures.picture import ColourTag

_SRGB_WHITE = (0.3127, 0.3290)
#: x and y of red, green and blue and of white, by the number of colour primaries (ITU-T H.273, table 2)
_PRIMARIES: dict[int, tuple[float, ...]] = {
    1: (*_SRGB_WHITE, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    5: (*_SRGB_WHITE, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_SRGB_WHITE, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_SRGB_WHITE, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_SRGB_WHITE, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_SRGB_WHITE, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
#: gamma of a transfer function that is a power (H.273, table 3)
_POWERS = {4: 2.2, 5: 2.8, 8: 1.0}
#: transfer functions of two pieces: points of the curve at equal steps
_SRGB_TRANSFER, _VIDEO_TRANSFERS = 13, (1, 6, 14, 15)
_CURVE_POINTS = 1024
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile_of(tag: ColourTag, channels: int) -> bytes | None:
    """Return a profile for 1 to 4 channels that says what a colour tag says; None where no profile can (PQ, HLG).

    A gamma alone is taken to be of sRGB's primaries, primaries alone to have sRGB's curve.
    """
    primaries: tuple[float, ...] | None = _PRIMARIES[1]
    curve: bytes | None = _sampled(_srgb)
    if tag.cicp is not None:
        first, transfer, full = tag.cicp
        primaries = _PRIMARIES.get(first if first != 2 else 1)
        curve = _curve_of(transfer if transfer != 2 else _SRGB_TRANSFER)
        if not full:
            return None
    else:
        if tag.chromaticities is not None:
            primaries = tag.chromaticities
        if tag.gamma is not None:
            curve = _power(1 / tag.gamma) if 0.05 <= tag.gamma <= 20 else None
    if primaries is None or curve is None:
        return None
    if channels <= 2:
        return _profile(b"GRAY", {b"kTRC": curve})
    columns = _columns(primaries)
    if columns is None:
        return None
    tags = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)}
    return _profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def for_three_channels(grey: bytes) -> bytes | None:
    """Return an RGB profile in which equal channels mean what one channel means in a grey profile.

    None where the grey profile has no curve of its own (`kTRC`), or is broken.
    """
    if len(grey) < 132:
        return None
    (count,) = struct.unpack_from(">I", grey, 128)
    for place in range(132, min(132 + 12 * count, len(grey) - 11), 12):
        name, at, size = struct.unpack_from(">4sII", grey, place)
        curve = grey[at : at + size]
        if name == b"kTRC" and len(curve) == size and curve[:4] in (b"curv", b"para"):
            columns = _columns(_PRIMARIES[1])
            assert columns is not None
            tags = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)}
            made = tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
            return _profile(b"RGB ", made, version=grey[8:12] if curve[:4] == b"para" else b"\2\x40\0\0")
    return None


def _curve_of(transfer: int) -> bytes | None:
    if transfer in _POWERS:
        return _power(_POWERS[transfer])
    if transfer == _SRGB_TRANSFER:
        return _sampled(_srgb)
    return _sampled(_video) if transfer in _VIDEO_TRANSFERS else None


def _srgb(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _video(values: np.ndarray) -> np.ndarray:
    return np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))


def _sampled(function: object) -> bytes:
    assert callable(function)
    points = np.rint(65535 * function(np.linspace(0, 1, _CURVE_POINTS))).astype(">u2")
    return b"curv" + struct.pack(">II", 0, _CURVE_POINTS) + points.tobytes()


def _power(gamma: float) -> bytes:
    """Return the curve of a power; 1 needs none, powers over 255 do not fit and are sampled."""
    if gamma == 1:
        return b"curv" + bytes(8)
    return b"curv" + struct.pack(">IIH", 0, 1, min(round(gamma * 256), 0xFFFF))


def _columns(chromaticities: tuple[float, ...]) -> np.ndarray | None:
    """Return X, Y and Z of the three primaries, adapted to D50 (Bradford), as columns; None where they are none."""
    white, *primaries = np.array(chromaticities, np.float64).reshape(4, 2)
    points = np.array([white, *primaries])
    if (points[:, 1] <= 0.01).any():
        return None
    unscaled = np.array([[x / y, 1, (1 - x - y) / y] for x, y in points]).T
    if abs(np.linalg.det(unscaled[:, 1:])) < 1e-6:
        return None
    scale = np.linalg.solve(unscaled[:, 1:], unscaled[:, 0])
    cones = _BRADFORD @ unscaled[:, 0]
    if (cones <= 0).any() or (scale <= 0).any():
        return None
    adapted = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / cones) @ _BRADFORD
    columns = np.asarray(adapted @ unscaled[:, 1:] * scale)
    # what a profile can hold, and eyes can see
    return columns if np.isfinite(columns).all() and np.abs(columns).max() < 4 else None


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * value) for value in values.tolist()))


def _profile(space: bytes, tags: dict[bytes, bytes], version: bytes = b"\2\x40\0\0") -> bytes:
    said = b"from the file's colour tag\0"
    described = b"desc" + struct.pack(">II", 0, len(said)) + said + bytes(78)
    tags = {b"desc": described, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": _xyz(_D50)} | tags
    at = 128 + 4 + 12 * len(tags)
    listed, bodies, places = b"", b"", {}
    for name, body in tags.items():
        if body not in places:
            places[body] = at + len(bodies)
            bodies += body + bytes(-len(body) % 4)
        listed += struct.pack(">4sII", name, places[body], len(body))
    illuminant = struct.pack(">3i", *(round(65536 * value) for value in _D50.tolist()))
    size = at + len(bodies)
    header = struct.pack(">I4s4s4s4s4s", size, bytes(4), version, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + illuminant + bytes(48)
    return header + struct.pack(">I", len(tags)) + listed + bodies
