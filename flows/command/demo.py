"""`darkroom demo`: the main job on the pictures that scikit-image brings along."""

from __future__ import annotations

from pathlib import Path

import skimage

from flows.command.console import out
from flows.command.show import run
from pipeline.requests.pictures import DevelopRequest


def demo(destination: str, prefect: bool | None) -> int:
    """Develop the bundled pictures; return the exit code."""
    pictures = Path(skimage.__file__).parent / "data"
    fields = {"source": str(pictures), "destination": destination, "suffixes": (".png", ".jpg")}
    request = DevelopRequest.model_validate(fields)
    code = run.develop(request, prefect)
    out.print("next: open the report in a browser; then darkroom develop YOUR_PICTURES DESTINATION")
    return code
