"""`darkroom demo`; that it runs from an installed wheel is for `tests/test_packaging.py`."""

from __future__ import annotations

import importlib.util

import pytest

from flows import demo
from pipeline.request import RequestError


def test_without_its_pictures_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "skimage" else importlib.util.find_spec(name))
    with pytest.raises(RequestError, match="pip install scikit-image"):
        demo.demo("out", False)
