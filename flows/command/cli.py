"""The `darkroom` command."""

from __future__ import annotations

import atexit
import os

import click

# before Prefect and Dask are imported: they read their settings then, and their own logs would drown the progress bars
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from flows.command import lists, models, pictures
from flows.command.exit_codes import EXIT_CODES, FAILED, leave, prepare_process
from flows.command.options import Context
from flows.orchestration.api import spare_loopback

_EXAMPLES = """\
  darkroom demo                                 # see that all is well
  darkroom develop ./photos ./out               # the main job
  darkroom develop s3://in s3://out --dry-run   # how much it would be
  darkroom develop --help                       # examples and options of one command"""


def run() -> None:
    """Run the command `darkroom` as a shell calls it: `main` in a process of its own, which it may end."""
    ended: list[int] = []
    # before a command imports its libraries, and so called after all that they register
    atexit.register(leave, ended)
    prepare_process()
    spare_loopback()
    try:
        main()
    except SystemExit as end:
        ended.append(end.code if isinstance(end.code, int) else FAILED)
        raise


class _Main(click.Group):
    """The group of all commands, whose help says what commands look like, and how they end."""

    context_class = Context

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        with formatter.section("Examples"):
            formatter.write(_EXAMPLES + "\n")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl(list(EXIT_CODES.items()))


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="darkroom")
def main() -> None:
    """Develop image sets: enhance, restore, compress, measure; from a folder or bucket to a folder or bucket."""


for _room in (pictures, models, lists):
    for _command in vars(_room).values():
        if isinstance(_command, click.Command):
            main.add_command(_command)
