"""Docstrings: public things have one, a function's begins with a verb in the imperative, and each stands alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef

#: what a function's or a method's docstring may begin with, in lower case
VERBS = """
abort add answer append apply ask average balance begin blur bring build call change check choose close cluster
collect combine compare compress compute connect convert copy correct count cut darken decode decompress delete
denoise describe develop divide do draw drop encode end enlarge equalise estimate explore fail fetch fill filter
find flatten gather give guess hold import interpolate join judge keep lay leave let lift list load look make mark
measure mend move multiply name note offer open pack paint parse pick plan print put quantise raise read record reduce
register remove rename render repeat replace report resample resize resolve restore return round run save say scale
search send serve set sharpen show shrink silence smooth sort split spread start stop store stretch subtract take tell
train translate turn undo unpack update wait walk work wrap write yield
"""

#: first words of a docstring that can only be understood after another one
LEANING = re.compile(
    r"(those|these|they|them|their|its?|likewise|ditto|also|and|but|then|such|as (above|before)|(the )?same|that of)\b",
    re.IGNORECASE,
)

ROOMS = ("darkroom", "flows", "models", "pipeline")
FOLDERS = sorted({path.parent.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")})


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_of_a_folder(folder: str) -> None:
    found = [fault for path in sorted((ROOT / folder).glob("*.py")) for fault in _faults(path)]
    assert not found, "\n".join(["", *found])


FAULTY = {
    "def f(): ...": "has no docstring",
    "class A: ...": "has no docstring",
    "def f():\n    '''The size of a picture.'''": "begins with 'The'",
    "async def f():\n    '''Whether a picture is there.'''": "begins with 'Whether'",
    "def f():\n    '''Returns a picture.'''": "begins with 'Returns'",
    "class A:\n    '''A thing.'''\n    def f(self):\n        '''A picture.'''": "begins with 'A'",
    "class A:\n    '''Those of a picture.'''": "leans on another",
    "class A:\n    '''A thing.'''\n    @property\n    def f(self):\n        '''Its size.'''": "leans on another",
    "def _f():\n    '''The same for files.'''": "leans on another",
    "'''Likewise, of files.'''": "leans on another",
}
SOUND = (
    "def f():\n    '''Return the size of a picture.'''",
    "def f():\n    '''Tell: is it there?'''",
    "def _f(): ...",
    "def _f():\n    '''Size of a picture.'''",
    "def f():\n    '''Make a reader.'''\n    def inner():\n        '''A picture.'''",
    "class A:\n    '''A thing.'''\n    def f(self): ...",
    "class A:\n    '''A thing.'''\n    @functools.cached_property\n    def f(self):\n        '''The size.'''",
    "class A:\n    '''A thing.'''\n    @f.setter\n    def f(self, to):\n        '''The size.'''",
    "class A:\n    '''A thing.'''\n    def __len__(self):\n        '''The size.'''",
    "class _A:\n    def f(self):\n        '''The size.'''",
    "@overload\ndef f(): ...",
)


@pytest.mark.parametrize(("source", "fault"), FAULTY.items())
def test_what_is_refused(source: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(source)
    (found,) = _faults(tmp_path / "module.py")
    assert fault in found


@pytest.mark.parametrize("source", SOUND)
def test_what_is_accepted(source: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(source)
    assert not list(_faults(tmp_path / "module.py"))


def _faults(path: Path) -> Iterator[str]:
    """Yield a line for every docstring of a module that is missing, begins without a verb or leans on another."""
    module = ast.parse(path.read_text())
    for node in [module, *(node for node in ast.walk(module) if isinstance(node, Function | ast.ClassDef))]:
        text = ast.get_docstring(node) or ""
        if LEANING.match(text):
            where = f"{path}:{getattr(node, 'lineno', 1)}"
            yield f"{where}: docstring {text[:40]!r} leans on another: name what it is about"
    private = re.match("_(?!_)", path.name)
    for node, of_module in _public(module):
        where, text = f"{path}:{node.lineno} {node.name}", ast.get_docstring(node)
        if not text:
            if of_module and not private and "overload" not in _decorators(node):
                yield f"{where} has no docstring: say in one sentence what it is, or what it does"
        elif isinstance(node, Function) and not _is_property(node) and not LEANING.match(text):
            first = re.match(r"[^\s:,.]*", text)[0]
            if not first[:1].isupper() or first.lower() not in VERBS.split():
                yield (
                    f"{where}: docstring begins with {first!r}: begin with a verb in the imperative"
                    " (Return, Tell, Write); if it is one, add it to VERBS"
                )


def _public(module: ast.Module) -> Iterator[tuple[Function | ast.ClassDef, bool]]:
    """Yield a module's public functions and classes, with True, and the public things in those classes, with False."""
    waiting: list[tuple[ast.stmt, bool]] = [(node, True) for node in _statements(module.body)]
    for node, of_module in waiting:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node, of_module
            if isinstance(node, ast.ClassDef):
                waiting += [(inner, False) for inner in _statements(node.body)]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a body, and what stands under its conditions."""
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, part, []))
            yield from (inner for handler in getattr(node, "handlers", []) for inner in _statements(handler.body))
        else:
            yield node


def _decorators(node: Function | ast.ClassDef) -> set[str]:
    """Return the last names of a thing's decorators: `cached_property` of `@functools.cached_property`."""
    called = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return {ast.unparse(each).split(".")[-1] for each in called}


def _is_property(node: Function) -> bool:
    """Tell whether a method is read, or set, like an attribute: its docstring may name what it is."""
    return any(name in ("setter", "deleter") or name.endswith("property") for name in _decorators(node))
