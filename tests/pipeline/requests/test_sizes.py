"""Amounts of bytes as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.requests.pictures import DevelopRequest
from pipeline.requests.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("1000", 1000),
        ("512 MB", 512_000_000),
        ("512MB", 512_000_000),
        ("2 GiB", 2 << 30),
        ("2g", 2_000_000_000),
        ("1.5 kb", 1500),
        (" 3 TiB ", 3 << 40),
        ("7B", 7),
    ],
)
def test_sizes_as_people_write_them(text: str, expected: int) -> None:
    """Powers of 1000 and of 1024, with a space or without, in any case."""
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "MB", "-1", "0", "1 PB", "0.2", "nan", "1e9", "1,5 GB", "9" * 30, "2 GB 3"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    """The message repeats what was given."""
    with pytest.raises(ValueError, match="size"):
        parse_size(text)
    with pytest.raises(ValueError, match="memory"):
        DevelopRequest(source="a", destination="b", memory=text)


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    """Nothing else comes out."""
    with suppress(ValueError):
        assert parse_size(text) >= 1
