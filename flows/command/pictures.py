"""Commands about sets of pictures and what runs left of them."""

from __future__ import annotations

import click

from flows.command.options import command
from pipeline.requests.pictures import CompressRequest, DecompressRequest, DevelopRequest, EvaluateRequest
from pipeline.requests.upkeep import AssembleRequest, GcRequest, VerifyRequest

_BOTH_ENDS = ("source", "destination")


@command(
    DevelopRequest,
    arguments=_BOTH_ENDS,
    prefect=True,
    dry_run=True,
    examples=[
        ("darkroom develop ./photos ./out", "the default recipe over a folder"),
        ("darkroom develop s3://photos/2026 s3://developed/2026 --dry-run", "what would be done, bucket to bucket"),
        ("darkroom develop ./photos ./out --recipe restore --include '2026/**'", "another recipe, some of the keys"),
        ("darkroom develop ./photos ./out --retry-failed --json", "only what failed before, for a program"),
    ],
)
def develop(request: DevelopRequest, prefect: bool | None, dry_run: bool) -> int:
    """Run a recipe over every picture of SOURCE and write pictures, streams and tables to DESTINATION.

    SOURCE may be one picture; DESTINATION is a folder all the same, and others may follow into it.
    """
    from flows.command.show import run

    return run.develop(request, prefect, dry_run)


@command(prefect=True, examples=[("darkroom demo ./out", "see that all is well, in two minutes")])
@click.argument("destination", default="./out")
def demo(destination: str, prefect: bool | None) -> int:
    """Develop some two dozen pictures that scikit-image brings along to DESTINATION, ./out by default."""
    from flows.command import demo as shown

    return shown.demo(destination, prefect)


@command(
    CompressRequest,
    arguments=_BOTH_ENDS,
    prefect=True,
    dry_run=True,
    examples=[
        ("darkroom compress photo.png photo.drk --quality 32", "one file, in this process"),
        ("darkroom compress ./photos ./small --target-bpp 0.5", "a folder, each file at half a bit a pixel"),
        ("darkroom compress s3://photos/raw s3://photos/small --dry-run", "how much that would be"),
    ],
)
def compress(request: CompressRequest, prefect: bool | None, dry_run: bool) -> int:
    """Compress every picture of SOURCE to a .drk stream in DESTINATION, with tables of what was measured.

    From one picture to a DESTINATION that ends in .drk that file is written, in this process, and nothing else.
    """
    from flows.command.show import streams

    return streams.compress(request, prefect, dry_run)


@command(
    DecompressRequest,
    arguments=_BOTH_ENDS,
    prefect=True,
    dry_run=True,
    examples=[
        ("darkroom decompress photo.drk photo.png", "one file, in this process"),
        ("darkroom decompress ./small ./pictures --format jpeg", "every stream below a folder"),
        ("darkroom decompress photo.drk eye.png --crop 200,120,64,64", "a part of a picture alone"),
    ],
)
def decompress(request: DecompressRequest, prefect: bool | None, dry_run: bool) -> int:
    """Decompress every .drk stream of SOURCE to a picture in DESTINATION.

    From one stream to a DESTINATION that ends like a picture that file is written, in this process, and nothing else.
    """
    from flows.command.show import streams

    return streams.decompress(request, prefect, dry_run)


@command(
    VerifyRequest,
    arguments=("destination",),
    prefect=True,
    examples=[
        ("darkroom verify s3://developed/2026", "read everything, compare every checksum"),
        ("darkroom verify ./out --quick", "sizes alone, from a listing"),
        ("darkroom verify ./out --repair --json", "do again what is wrong; all findings, for a program"),
    ],
)
def verify(request: VerifyRequest, prefect: bool | None) -> int:
    """Check all that runs have left at DESTINATION against their commits: existence, size, checksum, rows."""
    from flows.command.show import verification

    return verification.verify(request, prefect)


@command(
    GcRequest,
    arguments=("destination",),
    prefect=True,
    examples=[
        ("darkroom gc ./out --dry-run", "what killed runs have left"),
        ("darkroom gc s3://developed/2026 --older-than 24", "remove it where it is a day old"),
        ("darkroom gc ./out --gone --dry-run", "and results of pictures that the source holds no longer"),
    ],
)
def gc(request: GcRequest, prefect: bool | None) -> int:
    """Remove what killed runs have left at DESTINATION: objects that no commit names; with --gone results of pictures
    that are no longer in the source, too."""
    from flows.command.show import verification

    return verification.gc(request, prefect)


@command(
    AssembleRequest,
    arguments=_BOTH_ENDS,
    prefect=True,
    examples=[
        ("darkroom assemble ./out ./films", "every animation, document and video of a run"),
        ("darkroom assemble ./out ./films --branch clahe --format webm --rate 25", "one branch, as videos"),
    ],
)
def assemble(request: AssembleRequest, prefect: bool | None) -> int:
    """Put the frames that a run left at SOURCE together again: animations, pages, videos, stacks, at DESTINATION."""
    from flows.command.show import assembly

    return assembly.assemble(request, prefect)


@command(
    EvaluateRequest,
    arguments=_BOTH_ENDS,
    prefect=True,
    dry_run=True,
    examples=[
        ("darkroom evaluate ./kodak ./report", "all codecs there are, BD-rates against JPEG"),
        ("darkroom evaluate ./kodak ./report --codecs darkroom --codecs webp --points 5", "two of them"),
        ("darkroom evaluate ./bsd68 ./report --suite denoise", "denoisers under the field's protocol"),
    ],
)
def evaluate(request: EvaluateRequest, prefect: bool | None, dry_run: bool) -> int:
    """Compare codecs on every picture of SOURCE: rates, qualities, times, BD-rates and a report in DESTINATION.

    With --suite: restorations under the field's protocols, beside classical baselines and published figures.
    """
    from flows.command.show import evaluation

    return evaluation.evaluate(request, prefect, dry_run)
