"""The catalogue of steps: importing this module registers all of them, Darkroom's and those of installed packages."""

from pipeline.networks import autoencoders, learned_codec, restoration  # noqa: F401
from pipeline.requests.plugins import load_plugins
from pipeline.steps import codecs, degrade, enhance, geometry, inpaint, sharpen, smooth  # noqa: F401
from pipeline.steps.registry import Step, all_steps, find

__all__ = ["Step", "all_steps", "find"]

load_plugins()
