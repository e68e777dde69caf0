"""Commands that say what there is, and those about the command itself."""

from __future__ import annotations

import click

from flows.command.options import command


@command(examples=[("darkroom recipes", "every shipped recipe, a chain of steps for each branch")])
def recipes() -> int:
    """List the shipped recipes with their branches."""
    from flows.command.show import lists

    return lists.recipes()


@command(
    examples=[
        ("darkroom steps", "all of them"),
        ("darkroom steps clahe", "one step's parameters, with defaults and bounds"),
    ]
)
@click.argument("name", required=False)
def steps(name: str | None) -> int:
    """List what a recipe can do to a picture; with NAME, one step's parameters."""
    from flows.command.show import lists

    return lists.steps(name)


@command(
    examples=[
        ("darkroom models", "all that are shipped"),
        ("darkroom models denoise-small", "what was measured of one, and what it was trained on"),
        ("darkroom models --json", "all that the models' cards say"),
    ]
)
@click.argument("name", required=False)
def models(name: str | None) -> int:
    """List the shipped models; with NAME, a shipped one or the URL of any weights, all that is known of one."""
    from flows.command.show import lists

    return lists.models(name)


@command(examples=[("darkroom info photo.drk s3://photos/small/a.drk", "two streams")])
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def info(files: tuple[str, ...]) -> int:
    """Show what .drk FILEs (paths or URLs) say of themselves: size, quality, model, and how their bytes split."""
    from flows.command.show import lists

    return lists.info(files)


@command(
    reports=False,
    examples=[
        ("darkroom serve", "the UI on http://127.0.0.1:4200"),
        ("darkroom serve --port 4300 --runs 2", "elsewhere, two runs at a time"),
    ],
)
@click.option("--host", default="127.0.0.1", show_default=True, help="address that the server listens on")
@click.option("--port", default=4200, show_default=True, type=click.IntRange(1, 65535), help="its port")
@click.option("--work-pool", default="darkroom", show_default=True, help="process work pool, made where there is none")
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1, 64), help="runs at a time; others wait")
def serve(host: str, port: int, work_pool: str, runs: int) -> int:
    """Serve every flow from this machine: a Prefect server with its UI, deployments and a worker, until Ctrl-C.

    With PREFECT_API_URL set, deployments and worker go to that server instead, and no server is started.
    """
    from flows.command import serve as served

    return served.serve(host, port, work_pool, runs)


@command(
    reports=False,
    examples=[
        ('eval "$(darkroom completion bash)"', "for this shell; in ~/.bashrc for all that follow"),
        ("darkroom completion zsh > ~/.zfunc/_darkroom", "for zsh, in a folder of its $fpath"),
        ("darkroom completion fish > ~/.config/fish/completions/darkroom.fish", "for fish"),
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands, options and their values."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind
    click.echo(kind(context.find_root().command, {}, "darkroom", "_DARKROOM_COMPLETE").source())
