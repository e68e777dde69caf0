"""Graphics for tests and measurements: lossless pictures of some forty kinds, drawn here, in any size.

Every kind is a function of height, width and a NumPy generator, and returns H x W x 1|3, uint8.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from io import BytesIO

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Drawn = Callable[[int, int, np.random.Generator], np.ndarray]

_WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "42",
    "lazy",
    "dogs,",
    "(quickly)",
    "for",
    "1,998.50",
    "each",
)
_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) * 16 + 8
_PAPER = (250, 240, 200)


@cache
def scene(height: int, width: int) -> np.ndarray:
    """Return a photograph of that size, for dithers and halftones: H x W x 3, uint8."""
    from skimage import data

    side = max(height, width)
    return cv2.resize(data.astronaut(), (side, side), interpolation=cv2.INTER_AREA)[:height, :width]


def _grey(height: int, width: int) -> np.ndarray:
    return cv2.cvtColor(scene(height, width), cv2.COLOR_RGB2GRAY)


def _tiled(cells: np.ndarray, side: int, height: int, width: int) -> np.ndarray:
    """Enlarge cells (h x w x C) by a whole factor and cut them, not at a cell's corner."""
    return np.kron(cells, np.ones((side, side, 1), np.uint8))[side // 2 :, side // 3 :][:height, :width]


def _cells(height: int, width: int, side: int) -> tuple[int, int]:
    return height // side + 2, width // side + 2


def modules(side: int) -> Drawn:
    """Return what draws a code like QR, of modules so many pixels a side, with a quiet zone."""

    def draw(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
        cells = chance.integers(0, 2, (*_cells(height, width, side), 1), dtype=np.uint8) * np.uint8(255)
        code = _tiled(cells, side, height, width)
        zone = 2 * side
        code[:zone], code[-zone:], code[:, :zone], code[:, -zone:] = 255, 255, 255, 255
        return code

    return draw


def barcode(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw upright bars one to four pixels wide."""
    row = np.repeat(np.arange(width) % 2, chance.integers(1, 5, width))[:width] * 255
    return np.tile(row.astype(np.uint8), (height, 1))[:, :, None]


def pixel_art(side: int, colours: int = 6) -> Drawn:
    """Return what draws sprites of a few colours, each pixel enlarged to so many a side."""

    def draw(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
        colour = chance.integers(0, 256, (colours, 3), dtype=np.uint8)
        tall, wide = _cells(height, width, side)
        smooth = cv2.resize(chance.uniform(0, colours, (tall // 3 + 2, wide // 3 + 2)), (wide, tall))
        return _tiled(colour[np.clip(smooth.astype(int), 0, colours - 1)], side, height, width)

    return draw


def mosaic(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw tiles of 8 pixels, every one of a colour of its own."""
    return _tiled(chance.integers(0, 256, (*_cells(height, width, 8), 3), dtype=np.uint8), 8, height, width)


def enlarged(factor: int) -> Drawn:
    """Return what draws a photograph of which each pixel is enlarged to so many a side."""
    return lambda height, width, chance: _tiled(scene(*_cells(height, width, factor)), factor, height, width)


def text(size: int, paper: int = 255, ink: int = 0) -> Drawn:
    """Return what draws a page of smooth grey letters so many pixels tall."""

    def draw(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
        page = Image.new("L", (width, height), paper)
        pen, font = ImageDraw.Draw(page), ImageFont.load_default(size)
        for top in range(size // 2, height, round(size * 1.4)):
            pen.text((size, top), " ".join(chance.choice(_WORDS, 4 + width // size // 3)), fill=ink, font=font)
        return np.array(page)[:, :, None]

    return draw


def bilevel_text(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw a page of text in black and white, as a fax."""
    return (text(14)(height, width, chance) > 128).astype(np.uint8) * np.uint8(255)


def coloured_text(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw an editor in dark colours: smooth letters in five colours."""
    page = Image.new("RGB", (width, height), (30, 30, 46))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    inks = [(205, 214, 244), (137, 180, 250), (166, 227, 161), (243, 139, 168), (108, 112, 134)]
    for top in range(4, height, 16):
        left = 4 + 16 * int(chance.integers(0, 4))
        while left < width:
            word = str(chance.choice(_WORDS))
            pen.text((left, top), word, fill=inks[chance.integers(5)], font=font)
            left += 8 * len(word) + 8
    return np.array(page)


def sheet(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw a spreadsheet with lines at multiples of 16 and 64 pixels."""
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    for y in range(0, height, 16):
        pen.line((0, y, width, y), fill=(200, 200, 200))
    for x in range(0, width, 64):
        pen.line((x, 0, x, height), fill=(200, 200, 200))
        for y in range(0, height, 16):
            pen.text((x + 4, y + 2), f"{chance.integers(99999):5d}", fill=(20, 20, 60))
    return np.array(page)


def screenshot(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw windows with shaded title bars, buttons and text over a plain desktop."""
    page = Image.new("RGB", (width, height), (0, 90, 140))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for _ in range(4):
        left, top = int(chance.integers(0, width // 2)), int(chance.integers(0, height // 2))
        right, bottom = left + width // 2, top + height // 2
        pen.rectangle((left, top, right, bottom), fill=(240, 240, 240), outline=(90, 90, 90))
        for y in range(16):
            pen.line((left + 1, top + 1 + y, right - 1, top + 1 + y), fill=(60 + 4 * y, 110 + 4 * y, 200))
        pen.text((left + 4, top + 2), " ".join(chance.choice(_WORDS, 3)), fill="white", font=font)
        for y in range(top + 20, bottom - 14, 14):
            pen.text((left + 6, y), " ".join(chance.choice(_WORDS, 5)), fill=(20, 20, 20), font=font)
        pen.rounded_rectangle((right - 60, bottom - 20, right - 6, bottom - 4), 5, fill=(0, 120, 215))
    return np.array(page)


def chart(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw a chart: axes, a light grid, smooth lines, bars and labels."""
    page = np.full((height, width, 3), 255, np.uint8)
    for y in range(height // 8, height, max(height // 8, 8)):
        cv2.line(page, (0, y), (width, y), (225, 225, 225), 1)
    for x in range(0, width, max(width // 20, 6)):
        cv2.rectangle(page, (x, height - int(chance.integers(2, height // 2))), (x + 3, height), (150, 190, 230), -1)
    for colour in ((214, 39, 40), (44, 160, 44), (31, 119, 180)):
        y = height / 2 + np.cumsum(chance.normal(0, height / 40, width // 4 + 1))
        points = np.stack([np.arange(len(y)) * 4, y], 1).round().astype(np.int32)
        cv2.polylines(page, [points], False, colour, 2, cv2.LINE_AA)
    image = Image.fromarray(page)
    ImageDraw.Draw(image).text((4, 4), "pictures per second", fill=(40, 40, 40), font=ImageFont.load_default(11))
    return np.array(image)


def drawing(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw filled shapes with smooth dark outlines, as in comics."""
    page = np.full((height, width, 3), _PAPER, np.uint8)
    for _ in range(24):
        colour = tuple(int(c) for c in chance.integers(0, 256, 3))
        centre = (int(chance.integers(width)), int(chance.integers(height)))
        axes = (int(chance.integers(4, width // 5 + 6)), int(chance.integers(4, height // 5 + 6)))
        turn = int(chance.integers(180))
        cv2.ellipse(page, centre, axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(page, centre, axes, turn, 0, 360, (20, 20, 20), 2, cv2.LINE_AA)
    return page


def shaded_drawing(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw filled shapes with smooth outlines before a sky that shades from dark to light."""
    shapes = drawing(height, width, chance)
    sky = np.linspace((20, 40, 120), (180, 210, 250), height).round().astype(np.uint8)[:, None]
    return np.where((shapes == _PAPER).all(2, keepdims=True), sky, shapes).astype(np.uint8)


def line_art(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw a dense drawing of thin smooth lines, black on white."""
    page = np.full((height, width), 255, np.uint8)
    for _ in range(max(height, width) // 5):
        start, end = chance.integers(0, (width, height), (2, 2)).tolist()
        cv2.line(page, start, end, 0, 1, cv2.LINE_AA)
    return page[:, :, None]


def engraving(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw lines whose width follows a photograph, black and white."""
    y = np.arange(height)[:, None]
    return np.where(_grey(height, width) > (y * 51) % 256, 255, 0).astype(np.uint8)[:, :, None]


def circuit(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw a circuit diagram of straight lines and pads in four colours."""
    page = np.full((height, width, 3), (0, 60, 20), np.uint8)
    for _ in range(max(height, width) // 4):
        x, y, length = (int(chance.integers(most)) for most in (width, height, 120))
        cv2.line(page, (x, y), (x + length, y) if chance.integers(2) else (x, y + length), (40, 170, 60), 2)
        cv2.rectangle(page, (x - 3, y - 3), (x + 3, y + 3), (220, 190, 60), -1)
        cv2.rectangle(page, (x - 1, y - 1), (x + 1, y + 1), (20, 20, 20), -1)
    return page


def land_map(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw a map: bands of height in four colours, contour lines, roads, names."""
    field = cv2.GaussianBlur(chance.normal(0, 1, (height, width)), (0, 0), max(4, min(height, width) / 16))
    bands = np.clip(((field / field.std() + 2) * 2).astype(int), 0, 7)
    page = np.array([[170, 211, 223], [200, 230, 190], [180, 220, 160], [220, 220, 160]] * 2, np.uint8)[bands]
    page[np.diff(bands, axis=0, append=bands[-1:]) != 0] = (150, 100, 60)
    image = Image.fromarray(page)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    for _ in range(6):
        ends = [tuple(chance.integers(0, (width, height)).tolist()) for _ in range(3)]
        pen.line(ends, fill=(240, 240, 240), width=3)
        pen.text(ends[0], str(chance.choice(_WORDS)), fill=(60, 60, 60), font=font)
    return np.array(image)


def halftone(period: float, smooth: bool = False) -> Drawn:
    """Return what prints a grey photograph in dots so many pixels apart, at 45 degrees, hard-edged or smooth."""

    def draw(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
        y, x = np.mgrid[:height, :width]
        turn = 2 * np.pi / period / np.sqrt(2)
        screen = 127.5 + 63.75 * (np.cos((x + y) * turn) + np.cos((x - y) * turn))
        over = _grey(height, width) - screen
        inked = np.clip(127.5 + 4 * over, 0, 255) if smooth else 255.0 * (over > 0)
        return inked.round().astype(np.uint8)[:, :, None]

    return draw


def comic_dots(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw a comic: shapes on a ground of red dots."""
    page = drawing(height, width, chance)
    y, x = np.mgrid[:height, :width]
    dots = ((x % 6 - 2.5) ** 2 + (y % 6 - 2.5) ** 2) < 4
    page[dots & (page == _PAPER).all(2)] = (230, 60, 60)
    return page


def error_diffusion(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Print a grey photograph in black and white after Floyd and Steinberg."""
    return np.array(Image.fromarray(_grey(height, width)).convert("1")).astype(np.uint8)[:, :, None] * np.uint8(255)


def ordered_dither(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Print a grey photograph in black and white over a matrix of 4 x 4."""
    matrix = np.tile(_BAYER, (height // 4 + 1, width // 4 + 1))[:height, :width]
    return ((_grey(height, width) > matrix) * 255).astype(np.uint8)[:, :, None]


def palette(colours: int, dithered: bool = True) -> Drawn:
    """Return what draws a photograph in so many colours, as a GIF has them, dithered or in flat patches."""

    def draw(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
        image = Image.fromarray(scene(height, width))
        best = image.quantize(colours, dither=Image.Dither.NONE)
        if dithered:
            best = image.quantize(palette=best, dither=Image.Dither.FLOYDSTEINBERG)
        return np.array(best.convert("RGB"))

    return draw


def random_dots(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw black and white pixels by chance."""
    return chance.integers(0, 2, (height, width, 1), dtype=np.uint8) * np.uint8(255)


def checkerboard(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw a checkerboard of single pixels."""
    y, x = np.mgrid[:height, :width]
    return (((x + y) % 2) * 255).astype(np.uint8)[:, :, None]


def maze(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw walls one pixel thick on a grid of 8 pixels, in two greys that are near each other."""
    y, x = np.mgrid[:height, :width]
    wall = chance.integers(0, 2, (2, *_cells(height, width, 8)), dtype=np.uint8)
    walls = ((y % 8 == 0) & (wall[0, y // 8, x // 8] > 0)) | ((x % 8 == 0) & (wall[1, y // 8, x // 8] > 0))
    return np.where(walls, 150, 190).astype(np.uint8)[:, :, None]


def heat_map(height: int, width: int, chance: np.random.Generator) -> np.ndarray:
    """Draw a table of figures as coloured cells of 8 pixels."""
    tall, wide = _cells(height, width, 8)
    field = cv2.resize(chance.uniform(0, 255, (tall // 4 + 2, wide // 4 + 2)), (wide, tall)).astype(np.uint8)
    return _tiled(cv2.applyColorMap(field, cv2.COLORMAP_VIRIDIS)[:, :, ::-1], 8, height, width)


KINDS: dict[str, Drawn] = {
    "code, modules of 8": modules(8),
    "code, modules of 6": modules(6),
    "code, modules of 3": modules(3),
    "code, modules of 1": modules(1),
    "barcode": barcode,
    "pixel art": pixel_art(1),
    "pixel art x2": pixel_art(2),
    "pixel art x8": pixel_art(8),
    "pixel art x16, 64 colours": pixel_art(16, 64),
    "mosaic of 8": mosaic,
    "photograph enlarged x2": enlarged(2),
    "photograph enlarged x3": enlarged(3),
    "photograph enlarged x8": enlarged(8),
    "text, 1 bit": bilevel_text,
    "text, smooth": text(14),
    "text, smooth and small": text(9),
    "text, white on black": text(12, 0, 255),
    "text, grey on grey": text(12, 200, 90),
    "editor, dark": coloured_text,
    "spreadsheet": sheet,
    "screenshot": screenshot,
    "chart": chart,
    "drawing": drawing,
    "drawing, shaded": shaded_drawing,
    "line art": line_art,
    "engraving": engraving,
    "circuit": circuit,
    "map": land_map,
    "halftone of 8": halftone(8),
    "halftone of 5": halftone(5),
    "halftone of 6, smooth": halftone(6, smooth=True),
    "comic dots": comic_dots,
    "dither, error diffusion": error_diffusion,
    "dither, ordered": ordered_dither,
    "photograph in 16 colours": palette(16),
    "photograph in 256 colours": palette(256),
    "photograph in 32, flat": palette(32, dithered=False),
    "random dots": random_dots,
    "checkerboard": checkerboard,
    "maze": maze,
    "heat map": heat_map,
}


def draw(kind: str, height: int, width: int, seed: int = 5) -> np.ndarray:
    """Draw a graphic of a kind of KINDS: H x W x 1|3, uint8, C-contiguous."""
    return np.ascontiguousarray(KINDS[kind](height, width, np.random.default_rng(seed)))


def through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return uint8 pixels, H x W x 1|3, as a JPEG of that quality gives them: same shape."""
    file = BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file)).reshape(pixels.shape)
