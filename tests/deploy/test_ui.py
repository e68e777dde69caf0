"""What an operator does in Prefect's UI, in a real browser: fill a form, watch a run, open what it left.

With DARKROOM_SHOTS naming a folder, pictures of the pages are kept there.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.deployments import NIGHTLY, ON_DEMAND
from pipeline.storage.store import Store, list_objects, open_store, write
from tests.flows.serving import Served, free_port, serving, wait_for
from tests.runs import fill, picture_file, table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

_FILL = """
const label = [...document.querySelectorAll('label, .schema-form-property__label, [class*=label]')]
    .filter(one => one.textContent.trim() === arguments[0]).pop();
let around = label;
while (around && !around.querySelector('textarea, input')) around = around.parentElement;
const field = around.querySelector('textarea, input');
const kind = field.tagName === 'TEXTAREA' ? HTMLTextAreaElement : HTMLInputElement;
Object.getOwnPropertyDescriptor(kind.prototype, 'value').set.call(field, arguments[1]);
field.dispatchEvent(new Event('input', {bubbles: true}));
field.dispatchEvent(new Event('change', {bubbles: true}));
"""
_CLICK = """
const every = [...document.querySelectorAll('button, a, label, span')];
const found = every.filter(one => one.textContent.trim() === arguments[0]).pop();
if (found) found.click();
return Boolean(found);
"""


class Page:
    """A browser on the UI of a server."""

    def __init__(self, browser: Any, served: Served):
        self.browser, self.root = browser, served.api.removesuffix("/api")

    def open(self, path: str, *shown: str) -> None:
        """Open a page and wait until it shows some texts."""
        self.browser.get(f"{self.root}/{path}")
        self.wait(*shown)

    def wait(self, *shown: str) -> None:
        wait_for(lambda: all(text in self.text() for text in shown))

    def text(self) -> str:
        return self.browser.execute_script("return document.body.innerText")

    def click(self, name: str) -> None:
        """Click what has this name, if it is there by now, and give what follows two seconds."""
        self.browser.execute_script(_CLICK, name)
        time.sleep(2)

    def fill(self, label: str, value: str) -> None:
        self.browser.execute_script(_FILL, label, value)

    def keep(self, name: str, height: int = 1000) -> None:
        """Keep a picture of the page, where somebody wants them."""
        if folder := os.environ.get("DARKROOM_SHOTS"):
            self.browser.set_window_size(1400, height)
            self.browser.save_screenshot(f"{folder}/{name}.png")


def newest(served: Served, **about: Any) -> dict[str, Any] | None:
    """The flow run that was made last, of those that something is said about."""
    asked = {"flow_runs": about} if about else {}
    found = served.call("POST", "flow_runs/filter", sort="START_TIME_DESC", limit=1, **asked)
    return found[0] if found else None


def test_a_form_a_schedule_and_an_event_each_start_a_run(
    browser: Any, s3_store: Store, bucket: str, tmp_path: Path
) -> None:
    """From an S3 prefix to an S3 prefix, all by hand; then by a clock; then by an event with its parameters."""
    for number in range(3):
        write(s3_store, f"{number}.png", picture_file(number))
    write(s3_store, "bad.png", b"no picture")
    out = f"s3://{bucket}/by-hand"
    with serving(tmp_path / "home", tmp_path, free_port()) as served:
        page = Page(browser, served)
        deployment = served.call("GET", f"deployments/name/develop/{ON_DEMAND}")
        page.open(f"deployments/deployment/{deployment['id']}", "develop", "Run")
        page.keep("1-deployment")
        page.open(
            f"deployments/deployment/{deployment['id']}/run", "where the pictures are", "Shard deadline (seconds)"
        )
        page.keep("2-form", 4400)
        page.fill("Source", s3_store.url)
        page.fill("Destination", out)
        page.keep("3-filled")
        # the form may still be at work on what was filled in, and then takes no click
        run = wait_for(lambda: newest(served) or page.click("Submit"))
        state = served.finish(run["id"])
        assert state["type"] == "COMPLETED", state["message"]
        assert state["message"].startswith("4 pictures, 1 failed, 15 rows (run ")
        page.open(f"runs/flow-run/{run['id']}", f"develop default: {s3_store.url} -> {out}", "Completed")
        page.keep("4-run")
        page.open("artifacts", "develop-summary", "develop-report")
        page.keep("5-artifacts")
        for key, shown in (("summary", "learned"), ("failures", "not_an_image"), ("stages", "waiting seconds")):
            kept = next(one for one in served.call("POST", "artifacts/filter") if one["key"] == f"develop-{key}")
            page.open(f"artifacts/artifact/{kept['id']}", shown)
            page.keep(f"6-{key}")
        assert any(one.key.endswith("_SUCCESS") for one in list_objects(open_store(out)))
        assert_a_wrong_value_is_refused_at_once(served, deployment["id"])
        assert_a_clock_makes_a_run(served, s3_store, f"s3://{bucket}/by-clock")
        assert_an_event_makes_a_run(served, s3_store, f"s3://{bucket}/by-event")


def assert_a_wrong_value_is_refused_at_once(served: Served, deployment: str) -> None:
    """By the server, before there is a run; what only the request model knows, by the worker before any work."""
    for wrong in ({"shard_size": 0}, {"engine": "ray"}, {"recipe": {"branches": {"a": [{"step": "clah"}]}}}):
        parameters = {"request": {"source": "in", "destination": "out", **wrong}}
        url = f"{served.api}/deployments/{deployment}/create_flow_run"
        answer = httpx.post(url, json={"parameters": parameters}, timeout=60)
        assert answer.status_code in (409, 422), answer.text
        assert next(iter(wrong)) in answer.text
    late = served.start(f"develop/{ON_DEMAND}", request={"source": "in", "destination": "out", "memory": "much"})
    state = served.finish(late)
    assert state["type"] == "FAILED"
    assert "memory" in state["message"]


def assert_a_clock_makes_a_run(served: Served, source: Store, out: str) -> None:
    """The nightly deployment's schedule made short, given its places and switched on."""
    nightly = served.call("GET", f"deployments/name/develop/{NIGHTLY}")
    parameters = {"request": {"source": source.url, "destination": out, "device": "cpu"}}
    served.call("PATCH", f"deployments/{nightly['id']}", parameters=parameters)
    every = {"interval": 20, "anchor_date": datetime.now(UTC).isoformat(), "timezone": "UTC"}
    path = f"deployments/{nightly['id']}/schedules/{nightly['schedules'][0]['id']}"
    served.call("PATCH", path, active=True, schedule=every)
    wait_for(lambda: any(one.key.endswith("_SUCCESS") for one in list_objects(open_store(out))))
    served.call("PATCH", path, active=False)


def assert_an_event_makes_a_run(served: Served, source: Store, out: str) -> None:
    """As deploy/prefect.yaml has it: the event's payload becomes the request."""
    deployment = served.call("GET", f"deployments/name/develop/{ON_DEMAND}")
    payload = {name: f"{{{{ event.payload.{name} }}}}" for name in ("source", "destination")}
    served.call(
        "POST",
        "automations/",
        name="on upload",
        trigger={"type": "event", "posture": "Reactive", "expect": ["darkroom.upload.completed"], "threshold": 1},
        actions=[{"type": "run-deployment", "deployment_id": deployment["id"], "parameters": {"request": payload}}],
    )
    event = {
        "occurred": datetime.now(UTC).isoformat(),
        "event": "darkroom.upload.completed",
        "resource": {"prefect.resource.id": "darkroom.upload.test"},
        "payload": {"source": source.url, "destination": out},
        "id": "00000000-0000-4000-8000-000000000002",
    }
    httpx.post(f"{served.api}/events", json=[event], timeout=30).raise_for_status()
    run = wait_for(lambda: newest(served, name={"like_": out}))
    assert run["parameters"]["request"] == {"source": source.url, "destination": out}
    assert served.finish(run["id"])["type"] == "COMPLETED"


def test_a_killed_worker_ends_the_run_for_all_to_see_and_a_new_one_resumes(tmp_path: Path) -> None:
    """`kill -9` of worker and run: serve says so, shows the run as Crashed when it starts again, and it goes on."""
    fill(tmp_path / "many", 60, height=300, width=400)
    request = {"source": "./many", "destination": "./out", "recipe": "codecs", "device": "cpu", "shard_size": 5}
    port = free_port()
    with serving(tmp_path / "home", tmp_path, port) as served:
        run = served.start(f"develop/{ON_DEMAND}", request=request)
        wait_for(lambda: list(tmp_path.glob("out/runs/*/shards/*.json")))
        worker = next(
            one
            for one in served.processes()
            if "worker" in one.cmdline() and "flows.command.supervisor" not in one.cmdline()
        )
        killed = [worker, *worker.children(recursive=True)]
        for one in killed:
            one.kill()
        psutil.wait_procs(killed, timeout=30)
        assert served.process.wait(120) == 1
        assert "the worker ended" in served.log.read_text()
    assert not list(tmp_path.glob("out/runs/*/_SUCCESS"))
    committed = len(list(tmp_path.glob("out/runs/*/shards/*.json")))
    with serving(tmp_path / "home", tmp_path, port) as served:
        assert served.state(run)["type"] == "CRASHED"
        assert "goes on from where it was" in served.state(run)["message"]
        again = served.start(f"develop/{ON_DEMAND}", request=request)
        state = served.finish(again)
        assert (state["type"], committed > 0) == ("COMPLETED", True)
        assert len(table(tmp_path / "out", "manifest")) == 60
