"""Compressing and decompressing image sets: requests that become recipes of one branch for the run of any recipe."""

from __future__ import annotations

from pipeline.networks.codec_choice import CodecChoice
from pipeline.requests.pictures import CompressRequest, DecompressRequest, DevelopRequest

COMPRESSED, DECOMPRESSED = "compressed", "decompressed"


def compression(request: CompressRequest) -> DevelopRequest:
    """One branch, `compressed`, whose streams are kept and measured; no pictures are written."""
    chosen = {name: getattr(request, name) for name in CodecChoice.model_fields}
    step = {"step": "autoencode"} | {name: value for name, value in chosen.items() if value is not None}
    recipe = {"name": "compress", "branches": {COMPRESSED: [step]}, "output": {"format": "none"}}
    return DevelopRequest(**request.shared(), recipe=recipe)


def decompression(request: DecompressRequest) -> DevelopRequest:
    """One branch without steps, `decompressed`, whose pictures are written; nothing is measured."""
    output = {"format": request.format or "png"}
    recipe = {"name": "decompress", "branches": {DECOMPRESSED: []}, "output": output}
    return DevelopRequest(**request.shared(), recipe=recipe, measure=False, crop=request.crop, model=request.model)
