"""The options of the learned codec: the step's parameters and the request's fields are one model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.steps.offers import offering, shipped_models

#: taken where neither a quality nor a target is given
DEFAULT_QUALITY = 24
SHIPPED_CODEC = "codec-small"
_WAYS = ("quality", "target_bpp", "target_psnr")


class CodecChoice(BaseModel):
    """A model, and at most one of quality and targets; `quality` is never None where there is no target."""

    # commands that ask for no codec do not pay for its schema
    model_config = ConfigDict(defer_build=True)
    quality: float | None = Field(
        None,
        ge=1,
        le=64,
        multiple_of=1 / 16,
        description="1 smallest file, 64 best picture, in sixteenths; 24 unless a target is given",
    )
    target_bpp: float | None = Field(
        None, gt=0, le=64, allow_inf_nan=False, description="most bits a pixel of the whole file"
    )
    target_psnr: float | None = Field(
        None, ge=10, le=100, allow_inf_nan=False, description="least PSNR in dB, all colours together, 8-bit levels"
    )
    model: Annotated[str, offering(lambda: shipped_models("codec"), "URL of weights")] = Field(
        SHIPPED_CODEC, description="name of a shipped model, or URL of a safetensors file"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        named = [name for name in _WAYS if given.get(name) is not None]
        if len(named) > 1:
            raise ValueError(f"give one of {', '.join(named)}")
        return given if named else given | {"quality": DEFAULT_QUALITY}
