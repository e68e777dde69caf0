"""A run's metrics in a Delta Lake table: python examples/delta_lake.py RUN TABLE_URL; again appends nothing twice.

Needs `pip install deltalake`. Buckets: deltalake reads AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the like.
"""

import sys

from deltalake import DeltaTable

from pipeline.destination.delta import append_run, finished_runs
from pipeline.storage.store import open_store

if __name__ == "__main__":
    destination, url = open_store(sys.argv[1]), sys.argv[2]
    for run in finished_runs(destination):
        print(run, "appended" if append_run(destination, run, url) else "is there already")
    table = DeltaTable(url)
    print("version", table.version(), "rows", table.to_pyarrow_dataset().count_rows())
