"""The Job: resolved once, the same wherever it is taken up, and refused by name where it would be another."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.registry import load_model
from pipeline.destination.plans import read_plan, read_record
from pipeline.errors import PlanError, RunError
from pipeline.events import Advanced
from pipeline.requests.job import Job, resolve
from pipeline.requests.pictures import DevelopRequest
from pipeline.requests.recipe import fingerprint
from pipeline.requests.stores import Access
from pipeline.runs.finish import develop
from pipeline.runs.planning import plan_run
from pipeline.shards.shard import run_shard
from pipeline.steps import registry
from pipeline.storage.store import open_store
from tests.processes import ROOT
from tests.restoration_models import random_model
from tests.runs import contents, fill, only, request, table


def asked(recipe: Any, **changes: Any) -> DevelopRequest:
    return DevelopRequest(source="in", destination="out", recipe=recipe, **changes)


@pytest.mark.parametrize(
    ("recipe", "changes", "mark"),
    [
        (
            {
                "branches": {
                    "a": [{"step": "clahe"}, {"step": "gamma", "gamma": 2.0}],
                    "j": [{"step": "jpeg", "quality": 60}],
                }
            },
            {},
            "6fd832ffa42cc1cfbd465731180c5f41feb35027f062773b43cd31df07dce752",
        ),
        (
            {"branches": {"a": [{"step": "gamma"}]}},
            {"frames": "all", "crop": "0,0,10,10", "measure": False},
            "0a419b0c48c92a08edaf3bb93dac73aa234859c8b87124eccd6f4359b266ed14",
        ),
        (
            {"branches": {"a": [{"step": "autoencode", "model": "tests/models/golden/version1.safetensors"}]}},
            {},
            "647b596e75ef9cf1c9be6ee34c08d1ebb064eaa49a0492f6da7cefa7e4a24043",
        ),
    ],
)
def test_fingerprints_are_those_of_earlier_versions(
    recipe: Any, changes: dict[str, Any], mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was developed since the tables have version 6 stays developed; before, figures meant something else."""
    # parameters are part of it, and so is the path that was given then
    shutil.copytree(ROOT / "tests/models/codec/golden", tmp_path / "tests/models/golden")
    monkeypatch.chdir(tmp_path)
    assert resolve(asked(recipe, **changes)).fingerprint == mark


def test_the_fingerprint_of_a_shipped_network_is_that_of_earlier_versions() -> None:
    """With the weights that come with Darkroom now, written as commit 17a3883 wrote it, but for the tables' version."""
    weights = load_model("denoise-small").card.sha256
    said = (
        '[6, "source", [["d", [["gaussian_noise", 2, {"seed": 7, "sigma": 25.0}, null], ["denoise", 3, {"auto": true, '
        f'"model": null, "runtime": "auto", "sigma": null, "strength": 1.0}}, "{weights[:12]}"]], {{"format": "png", '
        '"metadata": "all", "quality": null}]], {"crop": null, "measure": true, "pixel_limit": 178000000}]'
    )
    job = resolve(asked({"branches": {"d": [{"step": "gaussian_noise", "sigma": 25, "seed": 7}, {"step": "denoise"}]}}))
    assert job.fingerprint == hashlib.sha256(said.encode()).hexdigest()
    assert job.weights == {"d": [None, weights]}


def test_a_record_is_the_same_job_again_and_holds_no_access(tmp_path: Path) -> None:
    """Through JSON, as it lies at a destination and travels to workers."""
    storage: dict[str, Any] = {"key": "the-key", "secret": "the-secret"}
    job = resolve(
        DevelopRequest(
            source="s3://in/pictures",
            destination=str(tmp_path),
            recipe={"branches": {"d": [{"step": "denoise", "model": random_model(tmp_path, "denoise")}]}},
            source_storage=storage,
            crop="0,0,20,20",
            frames="first",
        )
    )
    text = json.dumps(job.record())
    assert "the-secret" not in text
    assert "the-key" not in text
    again = Job.from_record(json.loads(text), job.access)
    assert (again.fingerprint, again.weights, again.settings) == (job.fingerprint, job.weights, job.settings)
    assert (again.recipe, again.source, again.destination) == (job.recipe, job.source, job.destination)
    assert Job.from_record(json.loads(text)).source.options != job.source.options


def test_other_weights_are_refused_by_name_wherever_the_job_is_taken_up(tmp_path: Path) -> None:
    """Both hashes are named; weights that are loaded already are taken without a look at what lies there now."""
    path, other = random_model(tmp_path, "denoise"), random_model(tmp_path, "denoise", seed=1)
    job = resolve(asked({"branches": {"d": [{"step": "denoise", "model": path}]}}))
    (planned,) = job.weights["d"]
    replace_weights(path, other)
    found = load_model(path).card.sha256
    assert found != planned
    assert Job.from_record(job.record()).weights == job.weights
    elsewhere = json.loads(json.dumps(job.record()).replace(str(planned), "ab" * 32))
    with pytest.raises(RunError, match=rf"step denoise: planned are the weights abababababab.*{str(found)[:12]} now"):
        Job.from_record(elsewhere)


def test_another_version_of_a_step_or_of_darkroom_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with what was planned and what is here."""
    record = resolve(asked({"branches": {"a": [{"step": "clahe"}]}})).record()
    older = record | {"resolved": record["resolved"] | {"darkroom": "0.0.1"}}
    with pytest.raises(RunError, match=r"planned with Darkroom 0\.0\.1, but .* has Darkroom \d"):
        Job.from_record(older)
    assert Job.from_record(older, other_darkroom=True).fingerprint == record["resolved"]["fingerprint"]
    changed = older | {"resolved": older["resolved"] | {"fingerprint": "ab" * 32}}
    with pytest.raises(RunError, match=r"fingerprint abababababab by Darkroom 0\.0\.1, but .* makes it [0-9a-f]{12};"):
        Job.from_record(changed, other_darkroom=True)
    step = registry.find("clahe")
    monkeypatch.setitem(registry._STEPS, "clahe", replace(step, version=99))
    with pytest.raises(RunError, match=rf"version {step.version} of the step clahe \(branch a\), but .* version 99"):
        Job.from_record(record)
    monkeypatch.delitem(registry._STEPS, "clahe")
    with pytest.raises(RunError, match=r"cannot do what was planned: .*no step called 'clahe'"):
        Job.from_record(record)


def test_a_shard_of_another_job_is_refused(tmp_path: Path) -> None:
    """Nothing is written under the fingerprint of other work."""
    source, out = fill(tmp_path / "in", 2), tmp_path / "out"
    plan = plan_run(resolve(request(source, out)))
    before = contents(out)
    with pytest.raises(RunError, match=rf"was planned for work of the fingerprint {plan.fingerprint[:12]}"):
        run_shard(resolve(request(source, out, measure=False)), plan, 0)
    assert contents(out) == before


def test_a_recipe_that_is_edited_during_a_run_changes_nothing_in_it(tmp_path: Path) -> None:
    """The shards after it are of the recipe that was planned; going on with a killed run under another is refused."""
    source, recipe = fill(tmp_path / "in", 5), tmp_path / "recipe.yaml"
    text = "branches: {g: [{step: gamma, gamma: %s}]}\noutput: {format: png}\n"
    recipe.write_text(text % 2.0)
    develop(request(source, tmp_path / "plain", str(recipe), shard_size=1))
    develop(
        request(source, tmp_path / "edited", str(recipe), shard_size=1),
        tell=only(Advanced, lambda _: recipe.write_text(text % 0.3)),
    )
    assert contents(tmp_path / "edited", "pictures/") == contents(tmp_path / "plain", "pictures/")
    columns = "key, psnr"
    assert table(tmp_path / "edited", "metrics", columns) == table(tmp_path / "plain", "metrics", columns)
    with pytest.raises(PlanError, match="another recipe or other settings"):
        develop(request(source, tmp_path / "edited", str(recipe), shard_size=1))

    def interrupted(_: Advanced) -> None:
        raise KeyboardInterrupt

    recipe.write_text(text % 2.0)
    with pytest.raises(KeyboardInterrupt):
        develop(request(source, tmp_path / "killed", str(recipe), shard_size=1), tell=only(Advanced, interrupted))
    recipe.write_text(text % 0.3)
    with pytest.raises(PlanError, match="another recipe or other settings"):
        develop(request(source, tmp_path / "killed", str(recipe), shard_size=1))


def test_weights_that_are_replaced_at_their_path_are_new_work(tmp_path: Path) -> None:
    """A process that has the old ones loaded takes the new ones for a new run, and the old ones to the end of one."""
    source = fill(tmp_path / "in", 3)
    first, second = random_model(tmp_path, "denoise", change=3.0), random_model(tmp_path, "denoise", 1, change=3.0)
    path = str(tmp_path / "model.safetensors")

    def run(model: str, name: str, **told: Any) -> Path:
        recipe = {"branches": {"d": [{"step": "denoise", "auto": False, "model": model}]}, "output": {"format": "png"}}
        develop(request(source, tmp_path / name, recipe, shard_size=1), **told)
        return tmp_path / name

    replace_weights(path, first)
    old, new = contents(run(first, "old"), "pictures/"), contents(run(second, "new"), "pictures/")
    assert old != new
    during = run(path, "during", tell=only(Advanced, lambda _: replace_weights(path, second)))
    assert contents(during, "pictures/") == old
    assert contents(run(path, "after"), "pictures/") == new


def test_a_run_of_an_earlier_version_says_its_fingerprint_all_the_same(tmp_path: Path) -> None:
    """Records without what a request was resolved to are held against the plan."""
    source, out = fill(tmp_path / "in", 2), tmp_path / "out"
    job = resolve(request(source, out))
    plan = plan_run(job)
    path = out / f"runs/{plan.run}/request.json"
    content = json.loads(path.read_text())
    del content["resolved"]
    path.write_text(json.dumps(content))
    store = open_store(out)
    record = read_record(store, read_plan(store, plan.run))
    assert Job.from_record(record, Access()).fingerprint == fingerprint_of(job) == plan.fingerprint
    path.write_text(json.dumps(content | {"pixel_limit": 7}))
    with pytest.raises(RunError, match=f"fingerprint {plan.fingerprint[:12]}, but"):
        Job.from_record(read_record(store, plan), Access())


def fingerprint_of(job: Job) -> str:
    settings = {"pixel_limit": job.request.pixel_limit, "measure": job.request.measure, "crop": job.request.crop}
    return fingerprint(job.recipe, settings)


def replace_weights(path: str, other: str) -> None:
    """Weights and card of one model in the place of another's."""
    for ending in (".safetensors", ".json"):
        shutil.copyfile(Path(other).with_suffix(ending), Path(path).with_suffix(ending))
