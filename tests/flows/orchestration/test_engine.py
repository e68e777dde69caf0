"""The window over a run's shards, whatever engine they run on: plain thread pools here."""

from __future__ import annotations

import threading
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from flows.orchestration.engine import ATTEMPTS, Engine, outcomes
from pipeline.errors import RunError, StorageError
from pipeline.requests.offers import shipped_recipes
from pipeline.requests.recipe import load_recipe, parse_recipe


class Pool:
    """An engine of threads whose shards do what a function says; counts what is begun and under way."""

    def __init__(self, work: Any, slots: int = 3):
        self.work, self.begun, self.most, self.inside = work, list[int](), 0, 0
        self.lock, self.threads = threading.Lock(), ThreadPoolExecutor(8)
        self.engine = Engine(self.submit, lambda: None, lambda: slots, died=(BrokenExecutor,))

    def submit(self, shard: int) -> Any:
        self.begun.append(shard)
        self.inside += 1
        self.most = max(self.most, self.inside)
        return self.threads.submit(self.run, shard)

    def run(self, shard: int) -> Any:
        try:
            return self.work(shard, self.begun.count(shard))
        finally:
            with self.lock:
                self.inside -= 1


def test_all_shards_run_with_a_few_under_way() -> None:
    """Each once, and never more at a time than there are slots."""
    pool = Pool(lambda shard, attempt: {"objects": shard})
    assert sorted(one["objects"] for one in outcomes(range(100), pool.engine)) == list(range(100))
    assert sorted(pool.begun) == list(range(100))
    assert pool.most <= 3


def test_a_shard_whose_process_dies_is_begun_again() -> None:
    """Shard 7 dies four times and then works; the others are done once."""

    def work(shard: int, attempt: int) -> dict[str, int]:
        if shard == 7 and attempt < ATTEMPTS:
            raise BrokenExecutor
        return {"objects": shard}

    pool = Pool(work)
    assert len(list(outcomes(range(20), pool.engine))) == 20
    assert pool.begun.count(7) == ATTEMPTS
    assert len(pool.begun) == 20 + ATTEMPTS - 1


def test_a_shard_whose_process_always_dies_ends_the_run() -> None:
    """The message names the shard and says what to do."""

    def work(shard: int, attempt: int) -> dict[str, int]:
        if shard == 3:
            raise BrokenExecutor
        return {"objects": shard}

    pool = Pool(work)
    with pytest.raises(RunError, match=r"shard 3: its worker died 5 times; .* again"):
        list(outcomes(range(20), pool.engine))
    assert pool.begun.count(3) == ATTEMPTS


def test_storage_that_fails_ends_the_run_and_a_shard_of_its_own_does_not() -> None:
    """A store that is gone is gone for all shards; a mistake in one shard is told when the others are done."""

    def work(error: Exception) -> Any:
        def run(shard: int, attempt: int) -> dict[str, int]:
            if shard == 3:
                raise error
            return {"objects": shard}

        return run

    pool, done = Pool(work(StorageError("unreachable", "gone")), slots=1), list[Any]()
    with pytest.raises(StorageError, match="gone"):
        done.extend(outcomes(range(20), pool.engine))
    assert pool.begun == [0, 1, 2, 3]
    pool = Pool(work(ZeroDivisionError("x")), slots=1)
    with pytest.raises(ZeroDivisionError):
        list(outcomes(range(20), pool.engine))
    assert pool.begun == list(range(20))


@pytest.mark.parametrize("name", shipped_recipes())
def test_recipes_travel_as_request(name: str) -> None:
    """What a worker makes of a recipe's content is the recipe that its file says."""
    recipe = load_recipe(name)
    assert parse_recipe(recipe.as_request()) == recipe
