"""A run through a network that fails: no failure row and no wrong byte, or an end in bounded time, and resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from pipeline.errors import StorageError
from pipeline.events import Advanced
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop
from pipeline.storage import access, s3_requests
from pipeline.storage.store import StorageOptions, Store, write
from tests.fault_proxy import USUAL, FaultProxy, fault_proxy
from tests.runs import QUICK, darkroom, only, picture_file, request, stored


@pytest.fixture
def proxy(s3_options: StorageOptions) -> Iterator[FaultProxy]:
    with fault_proxy(s3_options.endpoint, seed=1) as running:
        yield running


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed soon, and pauses are short: of the tests' time, not of what is done."""
    monkeypatch.setattr(s3_requests, "READ_TIMEOUT", 1.0)
    monkeypatch.setattr(access, "_BACKOFF_BASE", 0.02)


def fill(store: Store, count: int) -> None:
    for number in range(count):
        write(store, f"{number:03d}.png", picture_file(number))


def through(proxy: FaultProxy, options: StorageOptions, source: Store, destination: str, **more: Any) -> DevelopRequest:
    """A request whose every byte goes through the proxy."""
    faulty = options.model_copy(update={"endpoint_url": proxy.url})
    return request(source.url, destination, source_storage=faulty, destination_storage=faulty, **more)


def assert_unharmed(
    proxy: FaultProxy, options: StorageOptions, source: Store, bucket: str, count: int, **more: Any
) -> None:
    """A run through the proxy leaves what a run beside it leaves."""
    summary = develop(through(proxy, options, source, f"s3://{bucket}/faulty", **more))
    assert (summary.counts["good"], summary.counts["failed"], summary.reasons) == (count, 0, {})
    develop(request(source.url, f"s3://{bucket}/well", **more))
    assert stored(f"s3://{bucket}/faulty") == stored(f"s3://{bucket}/well")
    assert set(proxy.met) >= set(USUAL), "every kind of fault was met"


def test_a_run_survives_every_kind_of_fault(
    proxy: FaultProxy, s3_store: Store, bucket: str, s3_options: StorageOptions, hasty: None
) -> None:
    """Errors, resets, cut bodies and silence, a fifth of all requests."""
    fill(s3_store, 6)
    proxy.deal({"503": 2, "500": 1, "reset": 2, "truncated": 1, "stall": 1}, of=30)
    assert_unharmed(proxy, s3_options, s3_store, bucket, 6)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_longer_run_survives_the_usual_faults(
    proxy: FaultProxy, s3_store: Store, bucket: str, s3_options: StorageOptions
) -> None:
    """5 % errors, 2 % resets, 2 % cut bodies and 2 % silence over some hundred pictures, with the real pauses."""
    fill(s3_store, 150)
    proxy.deal(USUAL)
    assert_unharmed(proxy, s3_options, s3_store, bucket, 150, shard_size=50)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["503", "reset"])
def test_a_store_that_goes_down_ends_the_run_and_it_resumes(
    kind: str, proxy: FaultProxy, s3_store: Store, bucket: str, s3_options: StorageOptions, hasty: None
) -> None:
    """Once planned, everything fails: one error, no failure rows; when the store is back the rest is done."""
    fill(s3_store, 9)
    asked = through(proxy, s3_options, s3_store, f"s3://{bucket}/out")
    with pytest.raises(StorageError, match="run again when it is well") as caught:
        develop(asked, tell=only(Advanced, lambda _: proxy.deal({kind: 1}, of=1)))
    assert caught.value.kind == "unreachable"
    proxy.deal({})
    summary = develop(asked)
    assert (summary.counts["good"], summary.counts["failed"]) == (9, 0)


@pytest.mark.slow
def test_an_object_that_always_fails_is_one_failure_row(
    proxy: FaultProxy, s3_store: Store, bucket: str, s3_options: StorageOptions, hasty: None
) -> None:
    """Where the store still answers otherwise, the run goes on without the object, which a later run takes up."""
    fill(s3_store, 4)
    asked = through(proxy, s3_options, s3_store, f"s3://{bucket}/out")
    proxy.spoilt = "002.png"
    summary = develop(asked)
    assert (summary.counts["good"], summary.reasons) == (3, {"read_error": 1})
    proxy.spoilt = ""
    assert develop(asked).counts["good"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["503", "stall"])
def test_a_command_ends_in_bounded_time_when_everything_fails(
    kind: str, proxy: FaultProxy, s3_store: Store, bucket: str, s3_options: StorageOptions, tmp_path: Any
) -> None:
    """With the real pauses: one line, no traceback, in less than four minutes; and the same command finishes later."""
    fill(s3_store, 9)
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(yaml.safe_dump(QUICK))
    arguments = ["develop", s3_store.url, f"s3://{bucket}/out", "--recipe", recipe, "--device", "cpu", "--no-prefect"]
    proxy.deal({kind: 1}, of=1)
    started = time.monotonic()
    done = darkroom(*arguments, timeout=240, DARKROOM_S3_ENDPOINT=proxy.url)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (3, 1), done.stderr
    assert time.monotonic() - started < 240
    proxy.deal({})
    done = darkroom(*arguments, DARKROOM_S3_ENDPOINT=proxy.url)
    assert done.returncode == 0, done.stderr
