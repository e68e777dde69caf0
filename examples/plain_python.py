"""The main job without Prefect: python examples/plain_python.py SOURCE DESTINATION; again does only what is new."""

import sys

if __name__ == "__main__" and len(sys.argv) != 3:
    print(__doc__.splitlines()[0], file=sys.stderr)
    sys.exit(2)

import darkroom

RECIPE = {
    "name": "example",
    "branches": {
        "brighter": [{"step": "gamma", "gamma": 0.8}],
        "small": [{"step": "jpeg", "quality": 60}],
    },
    "output": {"format": "png"},
}


def run(source: str, destination: str) -> darkroom.Summary:
    """Say what there is to do, then develop, measure and write."""
    print("pictures to do:", darkroom.forecast(source, destination, recipe=RECIPE, device="cpu").objects)
    return darkroom.develop(source, destination, recipe=RECIPE, device="cpu")


if __name__ == "__main__":
    try:
        summary = run(sys.argv[1], sys.argv[2])
    except darkroom.DarkroomError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    print(summary.status, summary.counts["good"], "good,", summary.counts["failed"], "failed")
    for branch in summary.branches:
        print(branch["branch"], branch["pictures"], branch["psnr"], sep="\t")
