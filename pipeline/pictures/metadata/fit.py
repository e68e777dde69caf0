"""What of a picture's metadata a format can hold, and in which form.

| format   | ICC | EXIF | XMP | IPTC | texts    | resolution | colour tag   |
|----------|-----|------|-----|------|----------|------------|--------------|
| png      | yes | yes  | yes | yes  | yes      | yes        | yes          |
| tiff     | yes | yes  | yes | yes  | EXIF     | yes        | profile      |
| jpeg     | yes | yes  | yes | yes  | comments | yes        | profile      |
| jpeg2000 | yes | yes  | yes | yes  | EXIF     | yes        | profile      |
| webp     | yes | yes  | yes | EXIF | EXIF     | EXIF       | profile      |
| avif     | yes | yes  | yes | EXIF | EXIF     | EXIF       | cICP, profile |
| jpeg_xl  | no  | yes  | yes | EXIF | EXIF     | EXIF       | no           |
| drk      | yes | yes  | EXIF | EXIF | EXIF    | EXIF       | profile      |

*EXIF*: as a tag of the EXIF block (700 XMP, 33723 IPTC, 282 283 296 resolution; of texts title, author, copyright and
software). *profile*: as an ICC profile that says the same, which there is for all but PQ and HLG. What finds no place
is named in `dropped`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from pipeline.pictures.headers import METADATA_LIMIT, profile_fits
from pipeline.pictures.metadata import exif as blocks
from pipeline.pictures.metadata.profiles import for_three_channels, profile_of
from pipeline.pictures.picture import ColourTag, Metadata

_EVERYWHERE = frozenset({"icc", "exif", "xmp"})
_HOLDS = {
    "png": _EVERYWHERE | {"iptc", "text", "resolution", "colour", "cicp"},
    "tiff": _EVERYWHERE | {"iptc", "resolution"},
    "jpeg": _EVERYWHERE | {"iptc", "comment", "resolution"},
    "jpeg2000": _EVERYWHERE | {"iptc", "resolution"},
    "webp": _EVERYWHERE,
    "avif": _EVERYWHERE | {"cicp"},
    "jpeg_xl": frozenset({"exif", "xmp"}),
    "gif": frozenset({"comment"}),
    # videos, and streams of a codec that says nothing of metadata
    "": frozenset(),
    "drk": frozenset({"icc", "exif"}),
}
#: most bytes of a block, where a format has a limit below `METADATA_LIMIT`
_MOST = {
    ("jpeg", "exif"): 65_533 - 6,
    ("jpeg", "icc"): 255 * 65_519,
    ("drk", "icc"): 4 << 20,
    ("drk", "exif"): 4 << 20,
}
#: texts that EXIF has tags for
_TEXT_TAGS = {
    "title": blocks.DESCRIPTION,
    "description": blocks.DESCRIPTION,
    "comment": blocks.DESCRIPTION,
    "author": blocks.ARTIST,
    "copyright": blocks.COPYRIGHT,
    "software": blocks.SOFTWARE,
}
#: what tags of EXIF hold, for words to people
_WORDS = {blocks.XMP: "XMP", blocks.IPTC: "IPTC"} | dict.fromkeys(blocks.RESOLUTION_TAGS, "resolution")
#: of numbers of H.273, for words to people
_TRANSFERS = {16: "PQ", 18: "HLG"}
_DIMENSIONS = re.compile(rb"((?:exif:PixelXDimension|tiff:ImageWidth)(?:=[\"']|>))\d+")
_HEIGHTS = re.compile(rb"((?:exif:PixelYDimension|tiff:ImageLength)(?:=[\"']|>))\d+")
_TURNED = re.compile(rb"(tiff:Orientation(?:=[\"']|>))\d")


@dataclass(frozen=True)
class Fitted:
    """Metadata as a format holds them, and the names of what it does not hold."""

    metadata: Metadata
    dropped: tuple[str, ...] = ()


def fit(metadata: Metadata, format: str, width: int, height: int, channels: int) -> Fitted:
    """Return what of a picture's metadata a file of `format` can hold, made to describe upright pixels of this size.

    `channels` are those that are written.
    """
    holds = _HOLDS[format]
    dropped = list(metadata.lost)
    icc, colour = _colours(metadata, holds, channels, dropped)
    exif = metadata.exif
    if exif is not None and not blocks.is_sound(exif):
        exif = None
        dropped.append("EXIF, which is broken")
    if exif is not None:
        exif = blocks.describing(exif, width, height, metadata.resolution)
    text, tags = _texts(metadata, holds, dropped)
    xmp, iptc = metadata.xmp and _describing(metadata.xmp, width, height), metadata.iptc
    if xmp is not None and "xmp" not in holds:
        tags[blocks.XMP], xmp = (blocks.BYTE, xmp), None
    if iptc is not None and "iptc" not in holds:
        tags[blocks.IPTC], iptc = (blocks.UNDEFINED, iptc), None
    resolution = metadata.resolution
    # JPEG 2000 has no way to say that pixels are not square but by their size
    if resolution is not None and ("resolution" not in holds or (format == "jpeg2000" and not resolution.absolute)):
        tags |= blocks.resolution_tags(resolution)
        resolution = None
    if tags and "exif" not in holds:
        dropped += sorted({_WORDS.get(tag, "text") for tag in tags})
    elif tags:
        exif = _with_room(exif, tags, _most(format, "exif"), dropped)
    kept = replace(
        metadata, resolution=resolution, icc=icc, exif=exif, xmp=xmp, iptc=iptc, text=text, colour=colour, lost=()
    )
    for name, word in (("icc", "ICC profile"), ("exif", "EXIF"), ("xmp", "XMP"), ("iptc", "IPTC")):
        block = getattr(kept, name)
        if block is not None and (name not in holds or len(block) > _most(format, name)):
            left: dict[str, Any] = {name: None}
            kept = replace(kept, **left)
            dropped.append(f"{word}, which is too long" if name in holds else word)
    return Fitted(kept, tuple(dict.fromkeys(dropped)))


def _most(format: str, block: str) -> int:
    return _MOST.get((format, block), METADATA_LIMIT)


def _colours(
    metadata: Metadata, holds: frozenset[str], channels: int, dropped: list[str]
) -> tuple[bytes | None, ColourTag | None]:
    """Return the profile and the colour tag that are written."""
    icc, tag = metadata.icc, metadata.colour
    if icc is not None and not profile_fits(icc, channels):
        icc = for_three_channels(icc) if channels >= 3 and profile_fits(icc, channels - 2) else None
        if icc is None:
            dropped.append("ICC profile, which is of another colour space")
    if tag is None or "colour" in holds:
        return icc, tag
    held = tag.cicp is not None and "cicp" in holds and tag.cicp[2]
    if icc is None and not held and "icc" in holds:
        icc = profile_of(tag, channels)
        held = icc is not None
    # beside a profile, gamma and chromaticities are only for readers that know none
    if not held and (icc is None or tag.cicp is not None):
        dropped.append(f"colour tag{_named(tag)}")
    return icc, ColourTag(tag.cicp) if held and tag.cicp is not None and "cicp" in holds else None


def _named(tag: ColourTag) -> str:
    if tag.cicp is None:
        return ""
    return f" ({_TRANSFERS.get(tag.cicp[1], f'cICP {tag.cicp[0]}/{tag.cicp[1]}')})"


def _texts(
    metadata: Metadata, holds: frozenset[str], dropped: list[str]
) -> tuple[tuple[tuple[str, str], ...], dict[int, tuple[int, bytes]]]:
    """Return the texts that are written as such, and tags of EXIF that hold others."""
    if "text" in holds:
        return metadata.text, {}
    have = {entry.tag for entry in blocks.directory(metadata.exif or b"")}
    kept, tags, left = [], {}, []
    for keyword, text in metadata.text:
        tag = _TEXT_TAGS.get(keyword.lower())
        value = text.encode() + b"\0"
        if "comment" in holds and keyword == "Comment" and len(value) < 65_000:
            kept.append((keyword, text))
        elif tag is not None and tag not in have and tag not in tags:
            tags[tag] = (blocks.ASCII, value)
        elif tag is None or blocks.value_of(metadata.exif or b"", tag) != value:
            left.append(keyword)
    if left:
        dropped.append(f"text ({', '.join(dict.fromkeys(left))[:100]})")
    return tuple(kept), tags


def _with_room(exif: bytes | None, tags: dict[int, tuple[int, bytes]], most: int, dropped: list[str]) -> bytes | None:
    """Return EXIF with those of the tags that find room in it; smaller ones come first, others are dropped."""
    held: dict[int, tuple[int, bytes]] = {}
    for tag, value in sorted(tags.items(), key=lambda item: len(item[1][1])):
        if len(blocks.with_tags(exif, held | {tag: value})) <= most:
            held[tag] = value
        else:
            dropped.append(f"{_WORDS.get(tag, 'text')}, which is too long")
    return blocks.with_tags(exif, held) if held else exif


def _describing(xmp: bytes, width: int, height: int) -> bytes:
    """Return an XMP packet whose own size and orientation are those of upright pixels of this size."""
    xmp = _DIMENSIONS.sub(rb"\g<1>%d" % width, xmp)
    return _TURNED.sub(rb"\g<1>1", _HEIGHTS.sub(rb"\g<1>%d" % height, xmp))
