"""The layout below a destination: every path as a function, the ways back, and how what lies there is read.

Nothing else in pipeline/ and flows/ spells such a path. Paths have `/`, never begin with one, and keep their form: a
destination of an earlier version is found by the same functions.

Keys of an object store may have parts that are no names of files (empty, `.` and `..`) or that no listing shows (`.x`).
In a path these begin with `~`, as do those that would look like such a part then: no path leads out of its folder, and
no two keys have one path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.errors import StorageError
from pipeline.storage.store import Store, StoredObject, list_objects, read

PICTURES, STREAMS, TABLES, RUNS, EXPLORATIONS = "pictures", "streams", "tables", "runs", "explorations"
#: the present state of the tables, of all runs together
CURRENT = "current"
#: every folder of ours; what lies in none of them is somebody else's, but for `ASSEMBLED`
FOLDERS = (PICTURES, STREAMS, TABLES, CURRENT, RUNS, EXPLORATIONS)

#: who is at work at the destination
LEASE = f"{RUNS}/lease.json"
#: which runs and parts the current tables are of
CURRENT_RECORD = f"{RUNS}/current.json"
#: the page of `darkroom verify --report`
VERIFICATION = f"{RUNS}/verification.html"
#: which files `darkroom assemble` has put together
ASSEMBLED = "assembled.json"
_STRIPS = "strips/"
#: patterns for listings: plans and records of all runs, marks of those that ended well, commits of all shards
PLANS, RECORDS = f"{RUNS}/*/plan.json", f"{RUNS}/*/run.json"
SUCCESSES, COMMITS = f"{RUNS}/*/_SUCCESS", f"{RUNS}/*/shards/*.json"
#: runs and explorations are named by a letter and the beginning of a hash
_OWN = re.compile(rf"({RUNS}|{EXPLORATIONS})/[a-z][0-9a-f]{{12}}/[a-z]+\.json")
_CURRENT_PART = re.compile(rf"{CURRENT}/([a-z]+)/([a-z][0-9a-f]{{12}})-(\d{{5,}})\.parquet")
#: parts of keys that are put behind a "~", and parts of paths that one is taken from
_NO_NAME, _NAMED = re.compile(r"~*(\.|\Z)"), re.compile(r"~+(\.|\Z)")


def picture_path(branch: str, key: str, extension: str) -> str:
    """Return the path of a branch's developed picture of a key; `extension` has no dot."""
    return f"{PICTURES}/{branch}/{name_of(key)}.{extension}"


def stream_path(branch: str, key: str, extension: str) -> str:
    """Return the path of the stream that a branch's codec step left; `extension` has no dot."""
    return f"{STREAMS}/{branch}/{name_of(key)}.{extension}"


def branch_folder(folder: str, branch: str) -> str:
    """Return the folder of a branch's results, with `/` at the end; `folder` is PICTURES or STREAMS."""
    return f"{folder}/{branch}/"


def assembled_path(branch: str, name: str) -> str:
    """Return the path of a file of a branch's frames that were put together; `name` is the key of the file."""
    return f"{PICTURES}/{branch}/{name_of(name)}"


def table_folder(table: str, run: str = "") -> str:
    """Return the folder of a run's table, with `/` at the end; without a run how the folders of all runs begin."""
    return f"{TABLES}/{table}/run={run}/" if run else f"{TABLES}/{table}/run="


def part_path(table: str, run: str, shard: int) -> str:
    """Return the path of a shard's part of a table."""
    return f"{TABLES}/{table}/run={run}/part-{shard:05d}.parquet"


def parts_of(table: str, run: str) -> str:
    """Return the pattern of all parts of a run's table."""
    return f"{TABLES}/{table}/run={run}/part-*.parquet"


def current_path(table: str, run: str, shard: int) -> str:
    """Return the path of those rows of a shard's part of a table that no later run has superseded."""
    return f"{CURRENT}/{table}/{run}-{shard:05d}.parquet"


def current_folder(table: str) -> str:
    """Return the folder of a current table, with `/` at the end."""
    return f"{CURRENT}/{table}/"


def current_part(path: str) -> tuple[str, str, int] | None:
    """Return table, run and shard of a part of a current table; None for any other path."""
    found = _CURRENT_PART.fullmatch(path)
    return (found[1], found[2], int(found[3])) if found else None


def plan_path(run: str) -> str:
    """Return the path of a run's plan, which makes the plan valid."""
    return f"{RUNS}/{run}/plan.json"


def request_path(run: str) -> str:
    """Return the path of the record of what a run was asked for."""
    return f"{RUNS}/{run}/request.json"


def plan_part(parts: str, shard: int) -> str:
    """Return the path of the list of pictures of a planned shard; `parts` is the folder that the plan names."""
    return f"{RUNS}/{parts}/part-{shard:05d}.parquet"


def targets_path(parts: str) -> str:
    """Return the path where a run that does pictures again says which shards of which runs they are of."""
    return f"{RUNS}/{parts}/again.json"


def commit_path(run: str, shard: int) -> str:
    """Return the path of a shard's commit, its last object; it exists exactly when the shard is committed."""
    return f"{RUNS}/{run}/shards/{shard:05d}.json"


def commits_of(run: str) -> str:
    """Return the pattern of all commits of a run."""
    return f"{RUNS}/{run}/shards/*.json"


def begun_path(run: str, shard: int) -> str:
    """Return the path where a shard that is worked on says which of its pictures are in work."""
    return f"{RUNS}/{run}/begun/{shard:05d}.json"


def record_path(run: str) -> str:
    """Return the path of the record of how a run ended."""
    return f"{RUNS}/{run}/run.json"


def report_path(run: str) -> str:
    """Return the path of a run's page."""
    return f"{RUNS}/{run}/report.html"


def success_path(run: str) -> str:
    """Return the path of the empty object that says a run ended well."""
    return f"{RUNS}/{run}/_SUCCESS"


def evaluation_path(run: str, name: str) -> str:
    """Return the path of a page, table or picture of a run's evaluation."""
    return f"{RUNS}/{run}/evaluation/{name}"


def evaluation_folder(run: str) -> str:
    """Return the folder of a run's evaluation; what a suite measures is a destination of its own there."""
    return f"{RUNS}/{run}/evaluation"


def strip_path(setting: str, number: int) -> str:
    """Return the path of a suite's strip of pictures below its evaluation, by setting and number of the picture."""
    return f"{_STRIPS}{setting}-{number:05d}.png"


def is_strip(path: str) -> bool:
    """Return whether a path below an evaluation is that of a suite's strip."""
    return path.startswith(_STRIPS)


def exploration_folder(exploration: str) -> str:
    """Return the folder of an exploration; its looks at pictures are a destination of their own there."""
    return f"{EXPLORATIONS}/{exploration}"


def exploration_path(exploration: str, name: str) -> str:
    """Return the path of a page, table or picture of an exploration."""
    return f"{EXPLORATIONS}/{exploration}/{name}"


def index_path(mark: str) -> str:
    """Return the path of a search index; `mark` says of which vectors it is."""
    return f"{EXPLORATIONS}/index-{mark}.safetensors"


def folder_of(path: str) -> str:
    """Return the folder below the destination that a path lies in, one of FOLDERS where Darkroom wrote it."""
    return path.partition("/")[0]


def branch_of(path: str) -> str | None:
    """Return the branch whose picture or stream lies at a path; None for any other path."""
    folder, _, rest = path.partition("/")
    branch, slash, _ = rest.partition("/")
    return branch if folder in (PICTURES, STREAMS) and slash else None


def picture_of(path: str) -> tuple[str, str] | None:
    """Return branch and key of the developed picture that lies at a path; None for any other path."""
    branch, key = branch_of(path), key_of(path)
    return (branch, key) if branch and key is not None and folder_of(path) == PICTURES else None


def key_of(path: str) -> str | None:
    """Return the key of the source picture of the developed picture or stream at a path; None for any other path."""
    return key_of_name(path.split("/", 2)[2].rpartition(".")[0]) if branch_of(path) is not None else None


def name_of(key: str) -> str:
    """Return the part of a result's path that is made of its picture's key, which is the key itself for most."""
    return "/".join(f"~{part}" if _NO_NAME.match(part) else part for part in key.split("/"))


def key_of_name(name: str) -> str:
    """Return the key that `name_of` has made a part of a path of."""
    return "/".join(part[1:] if _NAMED.match(part) else part for part in name.split("/"))


def destinations_around(key: str) -> Iterator[str]:
    """Yield the folders, each with `/` at the end, that would be destinations if this object of a source were a result.

    For `old/out/pictures/a/b.png` it is `old/out/`: below it comes a folder of FOLDERS. A source as a whole is not
    among them.
    """
    folders = key.split("/")[:-1]
    for depth, name in enumerate(folders):
        if depth and name in FOLDERS:
            yield "/".join(folders[:depth]) + "/"


def is_destination(store: Store, folder: str) -> bool:
    """Return whether runs or explorations lie in a folder of a store.

    `folder` is "" or ends in `/`. Raises StorageError.
    """
    here = "".join(f"[{one}]" if one in "*?[" else one for one in folder)
    marks = [PLANS, RECORDS, request_path("*"), exploration_path("*", "explore.json")]
    return any(_OWN.fullmatch(one.key[len(folder) :]) for one in listed(store, [here + mark for mark in marks]))


def run_of(path: str) -> str | None:
    """Return the run, or the folder of a plan's parts, that a path in runs/ or tables/ belongs to; else None."""
    folder, *rest = path.split("/")
    if folder == RUNS and len(rest) > 1:
        return rest[0]
    if folder == TABLES and len(rest) > 1 and rest[1].startswith("run="):
        return rest[1].removeprefix("run=")
    return None


def read_or_none(store: Store, path: str) -> bytes | None:
    """Read an object; None where there is none. Raises StorageError for any other reason."""
    try:
        return read(store, path)
    except StorageError as error:
        if error.kind != "missing":
            raise
        return None


def read_json(store: Store, path: str) -> Any:
    """Read an object and parse it as JSON. Raises StorageError, and ValueError for what is no JSON."""
    return json.loads(read(store, path))


def listed(store: Store, include: Sequence[str]) -> Iterator[StoredObject]:
    """Yield the objects of a store that match any pattern, by key; a folder that is not there holds nothing."""
    try:
        yield from list_objects(store, include)
    except StorageError as error:
        if error.kind != "missing":
            raise
