"""Steps: one thing done to a picture. Importing this package registers all of them."""

from pipeline.steps import codecs, degrade, enhance, geometry, inpaint, networks, sharpen, smooth  # noqa: F401
from pipeline.steps.registry import Step, all_steps, find

__all__ = ["Step", "all_steps", "find"]
