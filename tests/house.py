"""Count how the house is built: python -m tests.house [CHECKOUT], this one unless another is named.

A room is a folder of `pipeline/`, `models/` or `flows/`, or a module that lies loose in one of them. An arrow leads
from a room to one that it imports, in functions too. What only type checkers read counts as well: it is knowledge all
the same.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

from tests.processes import ROOT

HOUSES = ("darkroom", "flows", "pipeline", "models")
Arrows = set[tuple[str, str]]


def modules(root: Path) -> dict[str, Path]:
    """Every module of the house by its dotted name; a package by the name of its folder."""
    found = {}
    for house in HOUSES:
        for path in sorted([*(root / house).rglob("*.py"), *root.glob(f"{house}.py")]):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """The room that a module lies in: `pipeline.suites` for `pipeline.suites.kinds.denoise`."""
    return ".".join(module.split(".")[:2])


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(root: Path) -> Arrows:
    """Pairs of modules of which the first imports the second, at its head or in a function."""
    there = modules(root)
    found = set()
    for name, path in there.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(parsed(path)):
            for told in _told(node, package):
                # of `from pipeline.steps import codecs` the module; of a name in a module, that module
                target = next((each for each in (told, told.rpartition(".")[0]) if each in there), None)
                found |= {(name, target)} if target and target != name else set()
    return found


def _told(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    if isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield from (f"{base}.{each.name}" for each in node.names)


def between_rooms(arrows: Arrows) -> Arrows:
    """The arrows between rooms that follow from those between modules."""
    rooms = {(room_of(one), room_of(other)) for one, other in arrows}
    return {(one, other) for one, other in rooms if one != other}


def circles(arrows: Collection[tuple[str, str]]) -> list[set[str]]:
    """Groups whose members all lead to each other: Tarjan's strongly connected components of more than one."""
    return [group for group in _groups(_neighbours(arrows)) if len(group) > 1]


def floors(arrows: Collection[tuple[str, str]]) -> int:
    """How many floors lie above each other when everything stands above what it imports; a circle is one floor."""
    level: dict[str, int] = {}
    neighbours = _neighbours(arrows)
    for group in _groups(neighbours):
        below = {level[other] for one in group for other in neighbours[one] if other not in group}
        level |= dict.fromkeys(group, 1 + max(below, default=0))
    return max(level.values(), default=0)


def _neighbours(arrows: Collection[tuple[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {end: set() for arrow in arrows for end in arrow}
    for one, other in arrows:
        found[one].add(other)
    return found


def _groups(neighbours: Mapping[str, Collection[str]]) -> list[set[str]]:
    """The strongly connected components, each after all that it leads to."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    done: list[set[str]] = []

    def visit(one: str) -> None:
        number[one] = low[one] = len(number)
        stack.append(one)
        for other in sorted(neighbours[one]):
            if other not in number:
                visit(other)
            if other in stack:
                low[one] = min(low[one], low[other])
        if low[one] == number[one]:
            cut = stack.index(one)
            done.append(set(stack[cut:]))
            del stack[cut:]

    for one in sorted(neighbours):
        if one not in number:
            visit(one)
    return done


def folders(root: Path) -> dict[str, int]:
    """How many modules lie in each folder, packages' own files left out."""
    counted: dict[str, int] = {}
    for path in modules(root).values():
        folder = str(path.parent.relative_to(root))
        counted[folder] = counted.get(folder, 0) + (path.name != "__init__.py")
    return counted


def knows_the_layout(root: Path) -> list[str]:
    """Modules outside `pipeline/destination` with a text that names `runs/...`, documentation left out."""
    known = []
    for name, path in modules(root).items():
        if room_of(name) != "pipeline.destination" and any("runs/" in text for text in _texts(parsed(path))):
            known.append(name)
    return known


def _texts(tree: ast.Module) -> Iterator[str]:
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


#: fields of requests that say what is to be opened
_DOORS = {"pipeline.requests.job", "pipeline.requests.stores"}
_ENDS = {"source", "destination", "recipe", "run", "source_storage", "destination_storage", "run_storage"}


def resolves_a_request(root: Path) -> list[str]:
    """Modules outside the two that open stores and recipes, once for each call that opens what a request names."""
    asked = ("recipe_of", "source_of", "destination_of")
    opening = ("open_store", "load_recipe", "parse_recipe")
    places = []
    for name, path in modules(root).items():
        calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
        for call in calls if name not in _DOORS else []:
            called = getattr(call.func, "id", getattr(call.func, "attr", ""))
            parts = [part for one in call.args for part in ast.walk(one)]
            of_request = any(isinstance(part, ast.Attribute) and part.attr in _ENDS for part in parts)
            places += [name] if called in asked or (called in opening and of_request) else []
    return places


def numbers(root: Path) -> dict[str, object]:
    """What is counted of a checkout, in words."""
    arrows = imports(root)
    pipeline = {pair for pair in arrows if all(end.startswith("pipeline.") for end in pair)}
    rooms, own = between_rooms(arrows), between_rooms(pipeline)
    circling = circles(rooms)
    doors = {room_of(name) for name in modules(root) if name.startswith("pipeline.")}
    fullest = max(folders(root).items(), key=lambda item: item[1])
    return {
        "modules in the fullest folder": f"{fullest[1]} ({fullest[0]})",
        "pipeline/: rooms": len(doors),
        "pipeline/: floors": floors(own),
        "pipeline/: circles between rooms": len(circles(own)),
        "circles between modules": len(circles(arrows)),
        "whole house: floors": floors(rooms),
        "whole house: arrows between rooms": len(rooms),
        "whole house: arrows in circles": sum(any({*pair} <= group for group in circling) for pair in rooms),
        "files that know `runs/...`": len(knows_the_layout(root)),
        "places that resolve a request": len(resolves_a_request(root)),
    }


def main() -> None:
    """Print the numbers of the checkout named, or of this one."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    for what, value in numbers(root).items():
        print(f"{what:38} {value}")


if __name__ == "__main__":
    main()
