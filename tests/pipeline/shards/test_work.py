"""Kinds of work: each can be taken up from a record, whoever wrote it is believed nothing else."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from pipeline.errors import RunError
from pipeline.requests.job import Job, resolve
from pipeline.shards import work
from tests.runs import fill, request


@pytest.mark.parametrize("kind", work._KINDS)
def test_every_kind_names_something_that_takes_up_records(kind: str) -> None:
    """The table names rooms above this one by text, which no other tool would check."""
    module, _, name = work._KINDS[kind].partition(":")
    assert callable(getattr(import_module(module), name).from_record)


def test_a_record_without_a_kind_is_of_a_recipe(tmp_path: Path) -> None:
    job = resolve(request(fill(tmp_path / "source", 1), tmp_path / "out"))
    again = work.taken_up(job.record())
    assert isinstance(again, Job)
    assert again.fingerprint == job.fingerprint


@pytest.mark.parametrize("kind", ["os:system", "", "Develop", None])
def test_a_kind_that_is_not_in_the_table_is_refused(kind: object) -> None:
    """What a record says is looked up, never imported."""
    with pytest.raises(RunError, match="this version knows develop, suite, looks"):
        work.taken_up({"resolved": {"kind": kind}})
