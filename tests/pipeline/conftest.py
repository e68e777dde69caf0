"""Pages opened in the headless browser."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def show(browser, tmp_path):
    """Opens a page; at the end of the test nothing may have been logged, popped up or requested."""
    page = tmp_path / "report.html"

    def open_page(text):
        page.write_text(text, encoding="utf-8")
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(page.as_uri())
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url for url in requested if not url.startswith("data:")} == {page.as_uri()}
