"""Stages of threads and the memory budget between them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from pipeline.shards.memory import MemoryBudget
from pipeline.threads import Stage

PATIENCE = 20


def test_a_stage_does_everything_once_on_no_more_threads_than_it_has() -> None:
    """A hundred items on three threads: each done once, never more than three at a time."""
    lock, done, busy, most = threading.Lock(), [], 0, 0
    finished = threading.Event()

    def work(item: int) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        with lock:
            busy -= 1
            done.append(item)
        if len(done) == 100:
            finished.set()

    stage = Stage("test", 3, work)
    for item in range(100):
        stage.submit(item)
    assert finished.wait(PATIENCE)
    stage.close()
    assert sorted(done) == list(range(100))
    assert most <= 3


def test_threads_are_started_only_as_they_are_needed() -> None:
    """Items that come one after another, each done before the next, need one thread."""
    stage: Stage[threading.Event] = Stage("test", 8, threading.Event.set)
    for _ in range(5):
        done = threading.Event()
        stage.submit(done)
        assert done.wait(PATIENCE)
        # the thread says that it is idle just after its work
        assert stage.idle.acquire(timeout=PATIENCE)
        stage.idle.release()
    assert stage.threads == 1
    stage.close()


def test_a_thread_that_hangs_is_replaced_by_growing() -> None:
    """With its only thread stuck a stage stands still; one more thread takes up the rest."""
    stuck, released, done = threading.Event(), threading.Event(), threading.Event()

    def work(item: str) -> None:
        if item == "hang":
            stuck.set()
            released.wait(PATIENCE)
        else:
            done.set()

    stage = Stage("test", 1, work)
    stage.submit("hang")
    assert stuck.wait(PATIENCE)
    stage.submit("rest")
    assert not done.wait(0.1)
    stage.grow()
    assert done.wait(PATIENCE)
    released.set()
    stage.close()


def test_closing_lets_the_queue_run_dry_and_the_threads_end() -> None:
    """What was submitted before is still done; afterwards no thread of the stage is left."""
    done: list[int] = []
    before, together = set(threading.enumerate()), threading.Barrier(4)

    def work(item: int) -> None:
        if item < 4:
            together.wait(PATIENCE)
        done.append(item)

    stage = Stage("test", 4, work)
    for item in range(20):
        stage.submit(item)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 4
    assert all(thread.daemon for thread in threads)
    stage.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert sorted(done) == list(range(20))


def test_the_budget_is_never_exceeded() -> None:
    """Fifty threads take what they need of ten; together they never hold more than ten."""
    budget, lock, held, most = MemoryBudget(10), threading.Lock(), 0, 0

    def work(count: int) -> None:
        nonlocal held, most
        taken = budget.take(count)
        with lock:
            held += taken
            most = max(most, held)
        with lock:
            held -= taken
        budget.give_back(taken)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(work, [1, 2, 3, 5, 10] * 40))
    assert most <= 10
    assert budget.free == 10


def test_one_that_needs_more_than_all_waits_and_then_works_alone() -> None:
    """A picture larger than the budget gets all of it, once nobody else holds any."""
    budget, got = MemoryBudget(10), threading.Event()
    small = budget.take(1)

    def large() -> None:
        assert budget.take(1000) == 10
        got.set()

    thread = threading.Thread(target=large)
    thread.start()
    assert not got.wait(0.1)
    budget.give_back(small)
    assert got.wait(PATIENCE)
    thread.join()
    assert budget.free == 0
