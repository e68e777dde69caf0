"""A flow of yours that has Darkroom develop pictures: python examples/downstream_flow.py SOURCE DESTINATION.

Then it works with their tables. Needs `pip install duckdb`, and a server with Darkroom's deployments and a worker:
`darkroom serve`, and PREFECT_API_URL as it says.
"""

import sys

if __name__ == "__main__" and len(sys.argv) != 3:
    print(__doc__.splitlines()[0], file=sys.stderr)
    sys.exit(2)

import duckdb
from prefect import flow, task
from prefect.deployments import run_deployment


@task
def worst_branch(run: str) -> tuple[str, float]:
    """The branch that lost most, with its mean PSNR."""
    query = f"SELECT branch, avg(psnr) FROM '{run}/current/metrics/*.parquet' GROUP BY branch ORDER BY 2 LIMIT 1"
    with duckdb.connect() as connection:
        row = connection.execute(query).fetchone()
    assert row
    return row


@flow
def develop_and_look(source: str, destination: str) -> tuple[str, float]:
    """Develop pictures in the worker's process, wait for it, and look at what came of it."""
    request = {"source": source, "destination": destination, "recipe": "codecs", "device": "cpu"}
    done = run_deployment("develop/on-demand", parameters={"request": request}, timeout=3600, poll_interval=2)
    # a run over its failure budget is Failed, and its message says how many pictures failed
    if not done.state or not done.state.is_completed():
        raise RuntimeError(f"develop ended as {done.state}")
    return worst_branch(destination)


if __name__ == "__main__":
    print(*develop_and_look(sys.argv[1], sys.argv[2]))
