"""The main job without Prefect: python examples/plain_python.py SOURCE DESTINATION."""

import sys

from pipeline.destination.run_record import Summary
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop

RECIPE = {
    "name": "example",
    "branches": {
        "brighter": [{"step": "gamma", "gamma": 0.8}],
        "small": [{"step": "jpeg", "quality": 60}],
    },
    "output": {"format": "png"},
}


def run(source: str, destination: str) -> Summary:
    """Develop, measure and write; the same call again does only what is new."""
    request = DevelopRequest(source=source, destination=destination, recipe=RECIPE, device="cpu")
    return develop(request, lambda plan: print("pictures to do:", plan.objects))


if __name__ == "__main__":
    summary = run(sys.argv[1], sys.argv[2])
    print(summary.status, summary.counts["good"], "good,", summary.counts["failed"], "failed")
    for branch in summary.branches:
        print(branch["branch"], branch["pictures"], branch["psnr"], sep="\t")
