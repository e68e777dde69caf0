"""Requests as forms: every field in words, names to choose from, no place for secrets; values are checked by both."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.cards import list_cards
from pipeline.requests import models
from pipeline.requests import pictures as requests
from pipeline.requests.catalogue import all_steps
from pipeline.requests.form import Form, field_order, parse_size
from pipeline.requests.models import GenerateRequest, TrainRequest
from pipeline.requests.offers import shipped_recipes
from pipeline.requests.pictures import CompressRequest, DevelopRequest
from pipeline.requests.recipe import load_recipe
from pipeline.steps.offers import shipped_models

FORMS = [
    one
    for module in (requests, models)
    for one in vars(module).values()
    if isinstance(one, type) and issubclass(one, Form) and one.__module__ == module.__name__
]


def field(form: type[Form], name: str) -> Any:
    return form.model_json_schema()["properties"][name]


@pytest.mark.parametrize("form", FORMS)
def test_every_field_is_in_words_and_none_takes_a_secret(form: type[Form]) -> None:
    schema = form.model_json_schema()
    assert list(schema["properties"]) == field_order(form)
    assert not any(name.endswith("_storage") for name in schema["properties"])
    assert "secret" not in json.dumps(schema).lower()
    for name, about in schema["properties"].items():
        assert about["title"], name
        assert about["description"], name
        if about.get("default") is None:
            assert {"type": "null"} not in about.get("anyOf", []), name


def test_there_are_names_to_choose_from() -> None:
    recipes = field(DevelopRequest, "recipe")
    assert recipes["anyOf"][0]["enum"] == shipped_recipes()
    assert [part["type"] for part in recipes["anyOf"]] == ["string", "string", "object"]
    assert recipes["default"] == "default"
    chain = recipes["anyOf"][2]["properties"]["branches"]["additionalProperties"]["anyOf"][0]
    assert chain["items"]["properties"]["step"]["enum"] == [step.name for step in all_steps()]
    assert field(GenerateRequest, "model")["anyOf"][0]["enum"] == ["representation-small"]
    assert field(CompressRequest, "model")["anyOf"][0]["enum"] == ["codec-small"]
    assert shipped_models() == [card.name for card in list_cards()]
    assert field(DevelopRequest, "shard_size") == {
        "description": "pictures a shard; default: 64, growing with the count to 2048",
        "maximum": 100_000, "minimum": 1, "title": "Shard size", "type": "integer",
    }  # fmt: skip
    assert field(DevelopRequest, "deadline_s")["title"] == "Deadline (seconds)"


def test_a_shipped_recipe_written_out_is_one_that_a_form_takes() -> None:
    from prefect.utilities.schema_tools.validation import validate

    schema = DevelopRequest.model_json_schema()
    for name in shipped_recipes():
        good = {"source": "in", "destination": "out", "recipe": load_recipe(name).as_request()}
        assert validate(good, schema) == [], name
    wrong = {"source": "in", "destination": "out", "recipe": {"branches": {"a": [{"step": "clah"}]}}}
    assert validate(wrong, schema)


def test_what_is_asked_for_in_a_line_without_credentials() -> None:
    def says(form: type[Form], **values: Any) -> str:
        return form(**values).says

    ends = {"source": "s3://me:hush@in/a", "destination": "s3://out"}
    assert says(DevelopRequest, **ends, recipe="mine/archive.yaml") == "develop archive: s3://in/a -> s3://out"
    assert says(DevelopRequest, **ends, recipe={"branches": {}}) == "develop own recipe: s3://in/a -> s3://out"
    assert says(CompressRequest, **ends) == "compress s3://in/a -> s3://out"
    assert says(TrainRequest, task="denoise", source=("a", "b"), model="m") == "train denoise: a, b -> m"
    assert len(says(DevelopRequest, source="x" * 500, destination="y")) == 200


def test_what_is_wrong_is_said_without_what_was_typed() -> None:
    with pytest.raises(ValidationError) as raised:
        DevelopRequest(source="in", destination="out", device="hush-hush")
    assert "device" in str(raised.value)
    assert "hush-hush" not in str(raised.value)


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
