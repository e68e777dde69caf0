"""The tables of runs in DuckDB: python examples/duckdb_tables.py RUN, the destination of `darkroom develop`.

For buckets: INSTALL httpfs; LOAD httpfs; CREATE SECRET (TYPE s3, KEY_ID '…', SECRET '…'); and s3:// URLs below.
"""

import sys

if __name__ == "__main__" and len(sys.argv) != 2:
    print(__doc__.splitlines()[0], file=sys.stderr)
    sys.exit(2)

import duckdb


def means(run: str) -> list[tuple]:
    """Branch, pictures, mean PSNR and mean size in kB, the best branch first."""
    query = f"""
        SELECT metrics.branch, count(*), round(avg(psnr), 2), round(avg(bytes) / 1000, 1)
        FROM read_parquet('{run}/current/metrics/*.parquet') AS metrics
        JOIN read_parquet('{run}/current/manifest/*.parquet') AS manifest USING (key)
        WHERE manifest.status = 'ok'
        GROUP BY ALL ORDER BY 3 DESC
    """
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


if __name__ == "__main__":
    for row in means(sys.argv[1]):
        print(*row, sep="\t")
