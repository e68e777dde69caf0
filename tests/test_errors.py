"""One tree of errors: each has an exit code, is drawn in a docstring, and survives the way between processes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

import models.errors
import pipeline.errors
from flows.command.serve import ServeError
from models.errors import DarkroomError

ERRORS = [
    kind
    for module in (models.errors, pipeline.errors)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if kind.__module__ == module.__name__
]
ARGUMENTS = {
    "StorageError": ("denied", "no key"),
    "ObjectError": ("denied", "no key"),
    "PictureError": ("corrupt", "no end"),
}


@pytest.mark.parametrize("kind", [*ERRORS, ServeError], ids=lambda kind: kind.__name__)
def test_the_docstring_draws_each_error_with_its_exit_code(kind: type[DarkroomError]) -> None:
    drawn = dict(re.findall(r"(\w+) +(\d+)\b", f"{models.errors.__doc__}{pipeline.errors.__doc__}"))
    assert issubclass(kind, DarkroomError)
    assert int(drawn[kind.__name__]) == kind.exit_code


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_is_the_same_in_another_process(kind: type[DarkroomError]) -> None:
    error = kind(*ARGUMENTS.get(kind.__name__, ("what is wrong",)))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), vars(copy)) == (str(error), vars(error))
