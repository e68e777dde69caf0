"""The `darkroom` command without a process of its own, for tests of what it does and not of how a process ends."""

from __future__ import annotations

import subprocess

from click.testing import CliRunner

from flows.command.cli import main


def invoke(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command here, which saves the seconds of importing everything; what comes back is as of a process."""
    words = [str(argument) for argument in arguments]
    done = CliRunner().invoke(main, words, env={"COLUMNS": "300"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
