"""Objects and buckets that a service refuses for a reason of their own: archived ones, and those whose readers pay."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.runs.finish import develop
from pipeline.storage import store as storage
from pipeline.storage.access import PART
from pipeline.storage.store import StorageOptions, open_store
from tests.runs import darkroom, picture_file, request, table
from tests.told_s3 import Service, Told, told_s3


def archived(number: int, storage: str = "GLACIER") -> Told:
    return Told(picture_file(number), error="403 InvalidObjectState", storage=storage)


def paying(service: Service) -> StorageOptions:
    return service.options.model_copy(update={"requester_pays": True})


def test_an_archived_object_is_said_to_be_archived() -> None:
    with told_s3({"x.png": archived(1, "DEEP_ARCHIVE")}) as service:
        with pytest.raises(
            StorageError, match=r"archived in DEEP_ARCHIVE .*; restore it there, as by .*, then run again"
        ) as caught:
            storage.read(open_store("s3://bucket", service.options), "x.png")
        assert caught.value.kind == "archived"
        assert "secret" not in caught.value.message
        assert service.gets("x.png") == 1


def test_archived_pictures_are_rows_and_taken_up_once_they_are_restored(tmp_path: Path) -> None:
    held = {"in/a.png": picture_file(0), "in/cold1.png": archived(1), "in/cold2.png": archived(2)}
    with told_s3(held) as service:
        asked = request("s3://bucket/in", tmp_path / "out", source_storage=service.options, max_failure_rate=0.9)
        first = develop(asked)
        assert (first.counts["good"], first.reasons) == (1, {"archived": 2})
        rows = table(tmp_path / "out", "failures", "key, branch, stage, reason")
        assert rows == [(key, None, "read", "archived") for key in ("cold1.png", "cold2.png")]
        service.objects["in/cold1.png"] = Told(picture_file(1))
        again = develop(asked)
        assert (again.counts["good"], again.reasons) == (1, {"archived": 1})


def test_buckets_whose_readers_pay_are_read_by_those_who_say_so() -> None:
    with told_s3({"a.png": b"a"}, payer=True) as service:
        store = open_store("s3://bucket", service.options)
        for act in (storage.check_access, lambda s: list(storage.list_objects(s)), lambda s: storage.read(s, "a.png")):
            with pytest.raises(StorageError, match="--requester-pays or DARKROOM_S3_REQUESTER_PAYS=true") as caught:
                act(store)
            assert caught.value.kind == "denied"
        payer = open_store("s3://bucket", paying(service))
        storage.check_access(payer)
        assert [one.key for one in storage.list_objects(payer)] == ["a.png"]
        assert storage.read(payer, "a.png", size=1) == b"a"
        assert storage.size(payer, "a.png") == storage.look_up(payer, "a.png").size == 1
        service.requests.clear()
        storage.write(payer, "b.png", b"b")
        storage.write(payer, "c.png", bytes(PART + 1))
        storage.create(payer, "d.json", b"{}")
        storage.delete(payer, "b.png")
        assert {told.get("x-amz-request-payer") for _, _, told in service.requests} == {"requester"}


@pytest.mark.parametrize(
    ("error", "pays", "said"),
    [
        ("403 SignatureDoesNotMatch", False, r"check the key, the secret and what they are allowed to do$"),
        ("403 InvalidAccessKeyId", False, r"check the key, the secret and what they are allowed to do$"),
        ("403 ExpiredToken", False, r"check the key, the secret and what they are allowed to do$"),
        ("403 AccessDenied", True, r"check the key, the secret and what they are allowed to do$"),
        ("403 AccessDenied", False, r"allowed to do; if its readers pay, say that you do: --requester-pays"),
        ("400 UserProjectMissing", False, r"its readers pay \(.*; say that you do: --requester-pays"),
    ],
)
def test_who_pays_is_asked_where_that_may_be_the_reason(error: str, pays: bool, said: str) -> None:
    with told_s3({"a.png": Told(b"a", error=error)}) as service:
        store = open_store("s3://bucket", paying(service) if pays else service.options)
        with pytest.raises(StorageError, match=said) as caught:
            storage.read(store, "a.png")
        assert caught.value.kind == "denied"


def test_the_option_comes_from_environment_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_S3_REQUESTER_PAYS", "true")
    assert StorageOptions.from_environment().requester_pays
    monkeypatch.delenv("DARKROOM_S3_REQUESTER_PAYS")
    assert not StorageOptions.from_environment().requester_pays
    (tmp_path / "recipe.yaml").write_text("name: quick\nbranches: {gamma: [{step: gamma}]}\noutput: {format: png}\n")
    command = ["develop", "s3://bucket/in", str(tmp_path / "out"), "--recipe", str(tmp_path / "recipe.yaml")]
    with told_s3({"in/a.png": picture_file()}, payer=True) as service:
        done = darkroom(*command, "--no-prefect", "--requester-pays", **service.environment)
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out", "manifest", "key, status") == [("a.png", "ok")]
