"""Recipes: the shipped ones load, every mistake is one clear error, and the fingerprint follows the output alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RecipeError
from pipeline.requests.catalogue import find
from pipeline.requests.offers import shipped_recipes
from pipeline.requests.recipe import Recipe, fingerprint, load_recipe, open_networks, parse_recipe

SETTINGS = {"pixel_limit": 1000, "measure": True}


def recipe(*steps: dict[str, Any], **others: Any) -> Recipe:
    return parse_recipe({"branches": {"a": list(steps)}} | others)


def marked(one: Recipe, settings: dict[str, Any]) -> str:
    return fingerprint(open_networks(one), settings)


def mark(text: str, tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return marked(load_recipe(str(path)), SETTINGS)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_survive_being_written_out(name: str) -> None:
    """What run.json keeps of a shipped recipe is the same recipe again."""
    shipped = load_recipe(name)
    assert shipped.name == name
    told = shipped.as_dict()
    outputs = told.pop("outputs")
    told["branches"] = {name: {"steps": steps, "output": outputs[name]} for name, steps in told["branches"].items()}
    assert marked(parse_recipe(told), SETTINGS) == marked(shipped, SETTINGS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("branches: {a: [{step: clah}]}", ["branch a", "'clah'", "did you mean clahe?"]),
        ("branches: {a: [{step: zzzz}]}", ["branch a", "'zzzz'", "darkroom steps"]),
        ("branches: {a: [{step: clahe, clip_limit: -1}]}", ["branch a", "step clahe", "clip_limit", "greater than 0"]),
        ("branches: {a: [{step: jpeg, quality: 0}]}", ["branch a", "step jpeg", "quality", "1"]),
        ("branches: {a: [{step: jpeg, quality: .nan}]}", ["branch a", "step jpeg", "quality"]),
        ("branches: {a: [{step: clahe, clip: 1}]}", ["branch a", "step clahe", "clip", "there is clip_limit"]),
        ("branches: {a: [{step: resize}]}", ["branch a", "step resize", "give one of"]),
        ("branches: {a: [{step: jpeg}, {step: autoencode}]}", ["branch a", "two codec steps", "two branches"]),
        ("branches: {a: [jpeg]}", ["branch a", "'jpeg' is no step", "{step: name"]),
        ("branches: {a: [{quality: 3}]}", ["branch a", "is no step"]),
        ("branches: {a: jpeg}", ["branch a", "list"]),
        ("branches: {a: {steps: [{step: jpeg}], outputs: {}}}", ["branch a", "outputs", "output"]),
        ("branches: {a: {steps: [{step: jpeg}], output: {quality: 101}}}", ["branch a", "output", "quality", "100"]),
        ("branches: {../x: [{step: jpeg}]}", ["'../x'", "letters"]),
        ("branches: {.x: [{step: jpeg}]}", ["'.x'", "letters"]),
        ("branches: {a/b: [{step: jpeg}]}", ["'a/b'", "letters"]),
        (f"branches: {{{'a' * 65}: [{{step: jpeg}}]}}", ["letters"]),
        ("branches: {source: [{step: jpeg}]}", ["'source'", "letters"]),
        ("branches: {75: [{step: jpeg}]}", ["75", "quotes"]),
        ("branches: {on: [{step: jpeg}]}", ["True", "quotes"]),
        ("branches: {a: [{step: jpeg}], a: [{step: png}]}", ["line 1", "a stands twice"]),
        ("reference: b\nbranches: {a: [{step: jpeg}]}", ["reference 'b'", "neither source nor"]),
        ("branches: {a: [{step: jpeg}]}\noutput: {format: bmp}", ["output", "format", "'png'"]),
        ("branches: {a: [{step: jpeg}]}\noutput: png", ["output", "'png' is no output", "{format: png}"]),
        ("branches: {a: [{step: jpeg}]}\nouput: {}", ["ouput", "output"]),
        ("branches: {}", ["needs `branches:`"]),
        ("branches: [{step: jpeg}]", ["needs `branches:`"]),
        ("", ["needs `branches:`"]),
        ("branches: [", ["not readable YAML", "line 1"]),
        ("branches:\n  a: [{step: jpeg}\n", ["not readable YAML: line 3, while parsing", "expected ',' or ']'"]),
        ("when: 2026-13-45", ["not readable YAML"]),
        ("[" * 100_000, ["not readable YAML"]),
        ("\x00", ["not readable YAML"]),
        ("#" * (1 << 20) + "\n", ["larger than 1 MiB"]),
    ],
)
def test_every_mistake_is_one_line_that_says_where_and_what(text: str, told: list[str], tmp_path: Path) -> None:
    """A recipe that cannot run is refused in one line which names the branch, the step and the cure."""
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message.removeprefix(str(path))) < 400
    for part in told:
        assert part in message


def test_files_that_are_no_text_or_not_there_are_refused(tmp_path: Path) -> None:
    """A picture, a folder and a name nobody knows give the same kind of error."""
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    for wrong in (tmp_path / "picture.yaml", tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(RecipeError, match=str(wrong)):
            load_recipe(str(wrong))
    with pytest.raises(RecipeError, match=", ".join(shipped_recipes())):
        load_recipe("defualt")


def test_weights_that_are_not_there_are_refused_before_anything_runs(tmp_path: Path) -> None:
    """The fingerprint needs the weights, and names branch, step and the models there are."""
    with pytest.raises(RecipeError, match=r"branch a, step denoise: there is no model called 'nix'.*denoise-small"):
        marked(recipe({"step": "denoise", "model": "nix"}), SETTINGS)
    with pytest.raises(RecipeError, match=r"branch a, step autoencode: .*does not exist"):
        marked(recipe({"step": "autoencode", "model": str(tmp_path / "x.safetensors")}), SETTINGS)


def test_the_fingerprint_does_not_follow_what_leaves_the_output_alone(tmp_path: Path) -> None:
    """Names, comments, the order of keys and spelled-out defaults change nothing."""
    plain = mark(
        "name: one\nbranches:\n  a: [{step: clahe, clip_limit: 2, tile_grid: 8}]\noutput: {format: png}", tmp_path
    )
    other = "# a comment\noutput: {format: png}\nreference: source\nname: two\nbranches:\n  a:\n"
    assert mark(other + "    - {tile_grid: 8, clip_limit: 2.0, step: clahe}", tmp_path) == plain
    assert marked(recipe({"step": "clahe", "clip_limit": 2, "tile_grid": 8}), SETTINGS) == plain
    spelled_out = recipe({"step": "jpeg", "quality": 75})
    assert marked(recipe({"step": "jpeg"}), SETTINGS) == marked(spelled_out, SETTINGS)
    a, b = {"a": [{"step": "jpeg"}]}, {"b": [{"step": "png"}]}
    first, second = parse_recipe({"branches": a | b}), parse_recipe({"branches": b | a})
    assert marked(first, SETTINGS) == marked(second, SETTINGS)


def test_the_fingerprint_follows_everything_that_changes_the_output() -> None:
    """A parameter, a step, their order, the format, the reference, the branches, the weights, the settings."""
    two = {"branches": {"a": [{"step": "jpeg"}], "b": [{"step": "png"}]}}
    recipes = [
        recipe({"step": "clahe"}),
        recipe({"step": "clahe", "clip_limit": 2.5}),
        recipe({"step": "equalise"}),
        recipe({"step": "clahe"}, {"step": "equalise"}),
        recipe({"step": "equalise"}, {"step": "clahe"}),
        recipe({"step": "clahe"}, output={"format": "jpeg"}),
        recipe({"step": "clahe"}, output={"format": "jpeg", "quality": 50}),
        recipe({"step": "clahe"}, output={"format": "none"}),
        parse_recipe({"branches": {"b": [{"step": "clahe"}]}}),
        parse_recipe(two),
        parse_recipe(two | {"reference": "a"}),
        recipe({"step": "denoise"}),
    ]
    marks = {marked(one, SETTINGS) for one in recipes}
    assert len(marks) == len(recipes)
    for changed in ({"pixel_limit": 1001}, {"measure": False}):
        marks.add(marked(recipes[0], SETTINGS | changed))
    assert len(marks) == len(recipes) + 2


def test_a_new_version_of_a_step_is_a_new_marked() -> None:
    """Raising a step's version makes every run of it a new one."""
    one = recipe({"step": "clahe"})
    branch = one.branches[0]
    newer = replace(branch.steps[0], step=replace(find("clahe"), version=99))
    other = replace(one, branches=(replace(branch, steps=(newer,)),))
    assert marked(one, SETTINGS) != marked(other, SETTINGS)


def test_a_branch_takes_the_common_output_and_may_change_part_of_it() -> None:
    """`output:` of a branch overrides only what it names."""
    both = parse_recipe(
        {
            "branches": {
                "own": {"steps": [{"step": "clahe"}], "output": {"format": "webp"}},
                "common": [{"step": "clahe"}],
            },
            "output": {"format": "jpeg", "quality": 42},
        }
    )
    assert [(b.output.format, b.output.quality) for b in both.branches] == [("webp", 42), ("jpeg", 42)]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("enhnace", "there is no recipe 'enhnace'; did you mean enhance? Shipped are benchmark-restoration, "),
        ("zzz", "there is no recipe 'zzz'; shipped are benchmark-restoration, "),
        ("none.yaml", "there is no recipe file none.yaml; check the spelling and the folder"),
    ],
)
def test_a_recipe_that_is_not_there_is_told_with_what_there_is(name: str, told: str) -> None:
    with pytest.raises(RecipeError, match=f"^{re.escape(told)}"):
        load_recipe(name)
