"""Files with something wrong, made from good ones of every format: a picture or a reason, never anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import REASONS, PictureError
from pipeline.pictures.decode import decode
from pipeline.runs.finish import develop
from tests.mutations import mutated
from tests.picture_files import small_files
from tests.runs import QUICK, request, table

#: small pictures that announce large ones are refused here, rather than decoded for seconds
LIMIT = 4_000_000


@pytest.mark.parametrize("name", small_files())
def test_mutations_are_pictures_or_have_a_reason(name: str) -> None:
    """Whatever the bytes are, nothing but PictureError comes out, and pixels are as promised."""
    for number in range(12):
        try:
            pixels = decode(mutated([small_files()[name]], number), pixel_limit=LIMIT).pixels
        except PictureError as error:
            said = error
            assert said.reason in REASONS
            assert said.message
        else:
            assert pixels.ndim == 3
            assert pixels.flags.c_contiguous


def test_a_run_over_mutations_has_a_row_for_each(tmp_path: Path) -> None:
    """Good rows and failure rows add up; every reason is documented; the run ends well."""
    source = tmp_path / "source"
    source.mkdir()
    for number, (name, data) in enumerate(small_files().items()):
        (source / f"{number}.{name.split()[0]}").write_bytes(mutated([data], 1000 + number))
    summary = develop(request(source, tmp_path / "out", QUICK, pixel_limit=LIMIT, max_failure_rate=1, shard_size=50))
    assert summary.status == "complete"
    assert summary.counts["good"] + summary.counts["failed"] == len(table(tmp_path / "out", "manifest"))
    assert summary.counts["objects"] >= len(small_files())
    assert set(summary.reasons) <= set(REASONS)
    assert summary.counts["good"] > 0 < summary.counts["failed"]


def test_mutations_are_the_same_each_time() -> None:
    """So that what was found can be found again."""
    files = list(small_files().values())
    assert [mutated(files, n) for n in range(50)] == [mutated(files, n) for n in range(50)]
    assert len({mutated(files, n) for n in range(200)}) > 190
