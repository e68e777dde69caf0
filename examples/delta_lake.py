"""A run's metrics in a Delta Lake table: python examples/delta_lake.py RUN TABLE_URL; `darkroom develop` wrote RUN.

The same again appends nothing twice. Needs `pip install deltalake`.
Buckets: deltalake reads AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the like.
"""

import sys

if __name__ == "__main__" and len(sys.argv) != 3:
    print(__doc__.splitlines()[0], file=sys.stderr)
    sys.exit(2)

from deltalake import DeltaTable

import darkroom
from pipeline.destination.delta import append_run, finished_runs

if __name__ == "__main__":
    destination, url = darkroom.open_destination(sys.argv[1]), sys.argv[2]
    for run in finished_runs(destination.store):
        print(run, "appended" if append_run(destination.store, run, url) else "is there already")
    table = DeltaTable(url)
    print("version", table.version(), "rows", table.to_pyarrow_dataset().count_rows())
