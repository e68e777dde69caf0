"""Compressing and decompressing image sets: requests that become recipes of one branch for the run of any recipe."""

from __future__ import annotations

from typing import Any

from pipeline.networks.codec_choice import CodecChoice
from pipeline.requests.pictures import CompressRequest, DecompressRequest, DevelopRequest

COMPRESSED, DECOMPRESSED = "compressed", "decompressed"


def compression(request: CompressRequest) -> DevelopRequest:
    """Return the request to develop by one branch, `compressed`: streams are kept and measured, no pictures written."""
    chosen = {name: getattr(request, name) for name in CodecChoice.model_fields}
    step = {"step": "autoencode"} | {name: value for name, value in chosen.items() if value is not None}
    recipe = {"name": "compress", "branches": {COMPRESSED: [step]}, "output": {"format": "none"}}
    return DevelopRequest(**request.shared(), recipe=recipe)


def decompression(request: DecompressRequest) -> DevelopRequest:
    """Return the request to develop by a branch without steps, `decompressed`: pictures are written, none measured.

    Their keys are those of the originals.
    """
    output = {"format": request.format or "png"}
    recipe = {"name": "decompress", "branches": {DECOMPRESSED: []}, "output": output}
    more: dict[str, Any] = {"measure": False, "originals": True, "crop": request.crop, "model": request.model}
    return DevelopRequest(**request.shared(), recipe=recipe, **more)
