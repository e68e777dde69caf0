"""Reading results: runs, tables, pictures and latents at a destination, local or in a bucket.

destination = open_destination("s3://bucket/developed")
destination.table("metrics").to_table(columns=["key", "branch", "psnr"])
destination.picture("clahe", "holiday/dune.jpg").pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from pipeline.destination.commits import read_commit
from pipeline.destination.current import finished_plans, read_current
from pipeline.destination.layout import (
    RECORDS,
    current_folder,
    current_part,
    listed,
    part_path,
    picture_path,
    read_json,
)
from pipeline.destination.schemas import SCHEMAS, current_schema
from pipeline.errors import StorageError
from pipeline.pictures.decode import decode
from pipeline.pictures.encode import EXTENSIONS
from pipeline.pictures.picture import Picture
from pipeline.storage.store import StorageOptions, Store, exists, filesystem, list_objects, open_store, read

#: pixels of the largest picture that is decoded where nobody says how many may be
PIXEL_LIMIT = 178_000_000


def open_destination(url: str | Path, storage: StorageOptions | None = None) -> Destination:
    """Open what runs have left at `url`; `storage` says how to reach a bucket, by default as the environment says.

    Nothing is contacted yet. Raises StorageError ("invalid") for a URL that cannot be one.
    """
    return Destination(open_store(url, storage))


@dataclass(frozen=True)
class Destination:
    """The results at one destination, read only; cheap to make and to hand to other processes.

    Every call reads what is there at that moment. A finished run is one that has its run.json, whether it ended well or
    with too many failures; nothing of other runs is shown. All methods raise StorageError.
    """

    store: Store

    def runs(self) -> list[dict[str, Any]]:
        """Read the run.json of every finished run, oldest first: name, status, counts, recipe, versions and times."""
        records = [read_json(self.store, found.key) for found in list_objects(self.store, [RECORDS])]
        # runs may have started within a second, and suites have no plan here
        order = {plan.run: plan.sequence for plan in finished_plans(self.store)}
        return sorted(records, key=lambda record: (record["started"], order.get(record["run"], 0), record["run"]))

    def table(self, name: str, all_runs: bool = False) -> ds.Dataset:
        """Return a table (manifest, metrics, latents or failures) as a dataset with its schema and the column `run`.

        Without `all_runs` only current rows are in it. A row of a finished run is current unless a finished run that
        was planned later has the same key in its manifest and, where the row names a branch, a branch of that name in
        its recipe: so what a later run could not do again has a row in failures, and none in metrics. Keys that are
        gone from the source stay current, as their pictures stay, until `darkroom gc --gone` removes both. A run that
        was killed while it ended may show already; it is to be gone on with.

        Rows are read when the dataset is; that raises OSError. Raises ValueError for a table that there is not, and
        StorageError ("missing") where finished runs have left no current tables, as those of earlier versions.
        """
        if name not in SCHEMAS:
            raise ValueError(f"there is no table {name!r}; there are: {', '.join(SCHEMAS)}")
        if all_runs:
            # runs that record what is gone have a manifest alone
            plans = [plan for plan in finished_plans(self.store) if name == "manifest" or not plan.gone]
            parts = [part_path(name, plan.run, shard) for plan in plans for shard in range(plan.shards)]
            return self._dataset(name, parts, ds.partitioning(pa.schema([("run", pa.string())]), flavor="hive"))
        parts = [found.key for found in listed(self.store, [f"{current_folder(name)}*"]) if current_part(found.key)]
        if not parts and read_current(self.store) is None and finished_plans(self.store):
            said = f"{self.store.url} has no current tables yet; `darkroom verify --repair` there makes them"
            raise StorageError("missing", said)
        return self._dataset(name, parts, None)

    def _dataset(self, name: str, parts: Sequence[str], partitioning: ds.Partitioning | None) -> ds.Dataset:
        schema = current_schema(name)
        if not parts:
            return ds.dataset(schema.empty_table())
        root = self.store.root.rstrip("/")
        return ds.dataset(
            [f"{root}/{part}" for part in parts],
            schema=schema,
            format="parquet",
            filesystem=LocalFileSystem() if self.store.is_local else filesystem(self.store),
            partitioning=partitioning,
            partition_base_dir=root,
        )

    def picture(self, branch: str, key: str, pixel_limit: int = PIXEL_LIMIT) -> Picture:
        """Read and decode a branch's developed picture: pixels H x W x C, uint8 or uint16, RGB order.

        Where pictures of the key lie there in several formats it is that of the newest run. Raises StorageError
        ("missing") where there is none, PictureError for one that cannot be decoded.
        """
        paths = [picture_path(branch, key, extension) for extension in sorted(set(EXTENSIONS.values()))]
        there = [path for path in paths if exists(self.store, path)]
        if not there:
            raise StorageError("missing", f"{self.store.url} holds no picture {key!r} of a branch {branch!r}")
        path = there[0] if len(there) == 1 else self._newest(there)
        return decode(read(self.store, path), path, pixel_limit)

    def latents(self, model: str) -> ds.Dataset:
        """Return the current latents of a model, by its name or by name@hash, as a dataset; see `table`."""
        said = ds.field("model")
        return self.table("latents").filter((said == model) | pc.starts_with(said, f"{model}@"))

    def _newest(self, paths: list[str]) -> str:
        """Return, of paths that are all there, the one that the newest run's commits name."""
        for plan in reversed(finished_plans(self.store)):
            for shard in range(plan.shards):
                named = {entry["path"] for entry in read_commit(self.store, plan.run, shard).outputs}
                for path in paths:
                    if path in named:
                        return path
        return paths[0]
