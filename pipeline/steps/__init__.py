"""Steps: one thing done to a picture. Importing this package registers all of them."""

from pipeline.steps import (  # noqa: F401
    autoencoders,
    codecs,
    degrade,
    enhance,
    geometry,
    inpaint,
    networks,
    restoration,
    sharpen,
    smooth,
)
from pipeline.steps.registry import Step, all_steps, find

__all__ = ["Step", "all_steps", "find"]
