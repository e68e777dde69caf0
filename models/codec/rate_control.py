"""The quality that meets a target: so many bits a pixel from below, or so much PSNR from above."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from models.codec.codec import HIGHEST, LOWEST, Codec, Latent, Still, analyse, compress, compress_latents, picture_of
from models.errors import TargetError
from models.inference import Apply

#: latents of larger pictures are computed anew for every quality that is tried; they take 5 bytes a pixel
KEPT_PIXELS = 16_000_000


@dataclass(frozen=True)
class Compressed:
    """A stream, its latent, and the quality (1..64, in sixteenths) it was coded at."""

    data: bytes
    latent: Latent
    quality: float


def compress_to_bpp(codec: Codec, still: Still, target: float, apply: Apply) -> Compressed:
    """Compress at the best quality whose whole file takes at most `target` bits a pixel (all of the file counts).

    Qualities are a third of a percent of rate apart, so files end within 2 % of the target unless they are tiny. Raises
    TargetError when even the lowest quality takes more.
    """
    pixels = still.colour.shape[0] * still.colour.shape[1]
    coded = _coder(codec, still, apply)
    found: dict[int, float] = {}

    def bpp(quality: int) -> float:
        if quality not in found:
            found[quality] = 8 * len(coded(quality)[0]) / pixels
        return found[quality]

    if bpp(LOWEST) > target:
        raise TargetError(
            f"{target:g} bits a pixel cannot be reached: the smallest file (quality 1) takes {bpp(LOWEST):.4g}"
        )
    quality = _last(lambda quality: bpp(quality) <= target, lambda q: float(np.log(bpp(q))), float(np.log(target)))
    return Compressed(*coded(quality), quality / 16)


def compress_to_psnr(codec: Codec, still: Still, target: float, apply: Apply) -> Compressed:
    """Compress at the lowest quality whose decoded colours have at least `target` dB PSNR (8-bit levels, all channels).

    With alpha, pixels count by it, and errors by how much of them is seen: over black, or white.
    Qualities are about 0.015 dB apart. Raises TargetError when even the highest quality has less.
    """
    coded = _coder(codec, still, apply)
    found: dict[int, float] = {}

    def psnr(quality: int) -> float:
        if quality not in found:
            found[quality] = _psnr(picture_of(codec, coded(quality)[1], apply), still)
        return found[quality]

    if psnr(HIGHEST) < target:
        raise TargetError(f"{target:g} dB cannot be reached: quality 64 gives {psnr(HIGHEST):.2f} dB")
    quality = LOWEST
    if psnr(LOWEST) < target:
        quality = _last(lambda quality: psnr(quality) < target, psnr, target) + 1
    return Compressed(*coded(quality), quality / 16)


def _coder(codec: Codec, still: Still, apply: Apply) -> Callable[[int], tuple[bytes, Latent]]:
    """Return a function that codes the picture at a quality; latents are kept for all of them where there is room.

    What was coded is not kept: it is coded again at the end, once, and else would fill memory.
    """
    height, width = still.colour.shape[:2]
    if height * width > KEPT_PIXELS:
        return partial(compress, codec, still, apply=apply)
    return partial(compress_latents, codec, still, analyse(codec, still, apply))


def _last(holds: Callable[[int], bool], value: Callable[[int], float], target: float) -> int:
    """Find the last quality at which `holds`, which holds at the lowest and is meant to fail from some quality on.

    Interpolates `value` towards the target between what held and what failed, and halves when that creeps.
    """
    low, high = LOWEST, HIGHEST
    if holds(high):
        return high
    turn = 0
    while high - low > 1:
        below, above = value(low), value(high)
        share = (target - below) / (above - below) if above > below else 0.5
        guess = (low + high) // 2 if turn % 3 == 2 else round(low + share * (high - low))
        guess = min(high - 1, max(low + 1, guess))
        if holds(guess):
            low = guess
        else:
            high = guess
        turn += 1
    return low


def _psnr(decoded: np.ndarray, still: Still) -> float:
    total = error = 0.0
    for top in range(0, len(decoded), 256):
        rows = slice(top, top + 256)
        squares = np.square(decoded[rows].astype(np.float32) - still.colour[rows])
        if still.alpha is not None:
            share = still.alpha[rows, :, None].astype(np.float32) / 255
            squares *= share**3
            total += float(share.sum(dtype=np.float64)) * decoded.shape[2]
        error += float(squares.sum(dtype=np.float64))
    error /= (decoded.size if still.alpha is None else total) or 1
    return 100.0 if error == 0 else min(100.0, 10 * np.log10(255**2 / error))
