"""How much vectors say of labels: a linear probe and k nearest neighbours on a held-out part."""

from __future__ import annotations

import csv
import difflib
import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RequestError
from pipeline.storage.store import StorageOptions, open_store, read, size

#: keys that are looked at for two that are alike
_LOOKED_AT = 200
#: bytes that a file of labels may have
LARGEST_FILE = 256 << 20
#: classes that are probed, at most; more are names, not classes
MOST_CLASSES = 1000
_NEIGHBOURS = 5
_HELD_OUT = 0.25


@dataclass(frozen=True)
class Probe:
    """Accuracy 0..1 on `test` held-out vectors of `classes` classes; `chance` is the share of the largest class."""

    probe: str
    accuracy: float
    chance: float
    train: int
    test: int
    classes: int


def read_labels(wanted: str, keys: Sequence[str], options: StorageOptions | None = None) -> list[str | None]:
    """Read a label for every key, None where there is none.

    `wanted` is `folder` (the name of the folder a picture lies in), or FILE:COLUMN, a CSV or Parquet file, path or URL,
    with a column `key`. Raises RequestError, also for a file none of whose keys is a picture's, and StorageError.
    """
    if wanted == "folder":
        return [key.rpartition("/")[0].rpartition("/")[2] or None for key in keys]
    url, _, column = wanted.rpartition(":")
    if not url or "/" in column:
        raise RequestError(f"labels are {wanted!r}; say `folder`, or FILE:COLUMN of a CSV or Parquet file")
    folder, _, name = url.rpartition("/")
    store = open_store(folder or ("/" if url.startswith("/") else "."), options)
    if size(store, name) > LARGEST_FILE:
        raise RequestError(f"{url} is larger than {LARGEST_FILE >> 20} MiB; give a file with the labels only")
    data = read(store, name)
    found = _from_parquet(data, url, column) if data[:4] == b"PAR1" else _from_csv(data, url, column)
    if keys and not any(key in found for key in keys):
        raise RequestError(_none_fits(url, list(found), keys))
    return [found.get(key) for key in keys]


def unlabelled(labels: Sequence[str | None], keys: Sequence[str]) -> str | None:
    """Say in a sentence how many pictures have no label, and one of them; None where all have one."""
    without = [key for key, label in zip(keys, labels, strict=True) if label is None]
    if not without:
        return None
    return f"{len(without):,} of {len(keys):,} pictures have no label, such as {without[0]}; figures are of the others"


def _none_fits(url: str, found: Sequence[str], keys: Sequence[str]) -> str:
    """Say that no key of a file of labels is a picture's, and which two are the nearest."""
    if not found:
        return f"{url} has no row with a key and a label; give a file that has"
    names = {key.rpartition("/")[2]: key for key in keys[:_LOOKED_AT]}
    for one in found[:_LOOKED_AT]:
        near = difflib.get_close_matches(one.rpartition("/")[2], names, 1)
        if near:
            pair = f"it has {one!r} where a picture is called {names[near[0]]!r}"
            break
    else:
        pair = f"it has {found[0]!r}, and pictures are called like {keys[0]!r}"
    return f"none of the {len(found):,} keys in {url} is one of the {len(keys):,} pictures: {pair}; name them alike"


def probe(vectors: np.ndarray, labels: Sequence[str | None], seed: int = 0) -> list[Probe]:
    """Train on three quarters of the labelled vectors (N x D), every class in its share, and score the rest.

    Classes of fewer than four are left out; where fewer than two are left there is nothing to probe.
    """
    counts = Counter(label for label in labels if label is not None)
    classes = [label for label, count in counts.items() if count >= 4]
    if not 2 <= len(classes) <= MOST_CLASSES:
        return []
    from sklearn.model_selection import train_test_split

    rows = np.flatnonzero(np.isin(np.array([label or "" for label in labels]), classes))
    names = np.array([labels[row] for row in rows.tolist()])
    held_out = max(len(classes), round(_HELD_OUT * len(rows)))
    train, test, train_names, test_names = train_test_split(
        vectors[rows], names, test_size=held_out, stratify=names, random_state=seed
    )
    return probe_split(train, train_names, test, test_names)


def probe_split(train: np.ndarray, train_names: np.ndarray, test: np.ndarray, test_names: np.ndarray) -> list[Probe]:
    """Train both probes on vectors n x D with their labels n, and score them, for a split that is given."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    chance = max(Counter(test_names.tolist()).values()) / len(test_names)
    facts = (chance, len(train), len(test), len(set(train_names.tolist())))
    near = min(_NEIGHBOURS, len(train))
    probes = {
        "linear": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300, tol=1e-3)),
        "nearest neighbours": make_pipeline(
            StandardScaler(with_std=False), Normalizer(), KNeighborsClassifier(near, weights="distance")
        ),
    }
    found = []
    for name, model in probes.items():
        # at the limit of its iterations the score is what it is
        with warnings.catch_warnings(action="ignore"):
            accuracy = model.fit(train, train_names).score(test, test_names)
        found.append(Probe(name, float(accuracy), *facts))
    return found


def _from_parquet(data: bytes, url: str, column: str) -> dict[str, str]:
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        _check_columns(file.schema_arrow.names, url, column)
        rows = file.read(["key", column])
        keys, values = rows["key"].cast(pa.string()).to_pylist(), rows[column].cast(pa.string()).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"{url} is no readable Parquet file: {error}") from error
    return {key: value for key, value in zip(keys, values, strict=True) if key is not None and value is not None}


def _from_csv(data: bytes, url: str, column: str) -> dict[str, str]:
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        _check_columns(rows.fieldnames or (), url, column)
        return {row["key"]: row[column] for row in rows if row["key"] and row[column]}
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{url} is neither CSV in UTF-8 nor Parquet: {error}") from error


def _check_columns(names: Sequence[str], url: str, column: str) -> None:
    missing = [name for name in ("key", column) if name not in names]
    if missing:
        there = ", ".join(names[:20]) or "none"
        raise RequestError(f"{url} has no column {missing[0]!r}; its columns are {there}")
