"""The tables of runs in Polars: python examples/polars_tables.py RUN, the destination of `darkroom develop`."""

import sys

if __name__ == "__main__" and len(sys.argv) != 2:
    print(__doc__.splitlines()[0], file=sys.stderr)
    sys.exit(2)

import polars as pl


def worst(run: str, count: int) -> pl.DataFrame:
    """The pictures that a branch kept worst, by PSNR, read lazily: only the columns and rows that are asked for."""
    metrics = pl.scan_parquet(f"{run}/current/metrics/*.parquet")
    manifest = pl.scan_parquet(f"{run}/current/manifest/*.parquet")
    return (
        metrics.filter(pl.col("psnr").is_not_null())
        .join(manifest.select("key", "url", "format"), on="key")
        .select("branch", "key", "format", "psnr")
        .sort("psnr", "key", "branch")
        .head(count)
        .collect()
    )


if __name__ == "__main__":
    print(worst(sys.argv[1], 5))
