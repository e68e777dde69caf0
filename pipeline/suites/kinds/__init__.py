"""The field's comparisons of restorations, each with its own degradations, baselines and measurements."""

from pipeline.suites.kinds import deblock, deblur, denoise, enhance, inpaint, upscale
from pipeline.suites.suite import Suite

SUITES: dict[str, Suite] = {
    module.SUITE.name: module.SUITE for module in (denoise, upscale, deblock, inpaint, deblur, enhance)
}

__all__ = ["SUITES", "Suite"]
