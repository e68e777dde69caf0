"""The `darkroom` command, as `python -m darkroom` too: beside a user's own `flows/`, `pipeline/` or `models.py`."""

from flows.command.cli import run

if __name__ == "__main__":
    run()
