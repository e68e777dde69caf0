"""`darkroom demo`: the main job on the pictures that scikit-image brings along."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from flows import display
from flows.output import out
from pipeline.request import DevelopRequest, RequestError


def demo(destination: str, prefect: bool) -> int:
    """Develop the bundled pictures; returns the exit code. Raises RequestError where scikit-image is not installed."""
    found = find_spec("skimage")
    if not found or not found.submodule_search_locations:
        raise RequestError("the demo's pictures come with scikit-image, which is not here: pip install scikit-image")
    pictures = Path(found.submodule_search_locations[0]) / "data"
    fields = {"source": str(pictures), "destination": destination, "suffixes": (".png", ".jpg")}
    request = DevelopRequest.model_validate(fields)
    code = display.develop(request, prefect)
    out.print("next: open the report in a browser; then darkroom develop YOUR_PICTURES DESTINATION")
    return code
