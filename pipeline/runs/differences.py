"""What makes two runs different work: the records of both, compared for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.requests.job import DECISIVE
from pipeline.requests.pictures import DevelopRequest
from pipeline.storage.access import without_credentials

#: differences that are named
_NAMED = 3
_DIGITS = 12

Record = Mapping[str, Any]


def said_differences(before: Record, now: Record) -> str | None:
    """Say in a line what of a job (see `Job.record`) was otherwise in an earlier one; None where nothing is known.

    Each difference is named with what was then and what is now, the first few of them.
    """
    found = list(_differences(before, now))
    if not found:
        return None
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return without_credentials("; ".join(found[:_NAMED]) + more)


def _differences(before: Record, now: Record) -> Iterator[str]:
    for name in DECISIVE:
        default = DevelopRequest.model_fields[name].default
        yield from _changed(f"--{name.replace('_', '-')}", before.get(name, default), now.get(name, default))
    yield from _of_recipes(before.get("recipe"), now["recipe"])
    then, here = before.get("resolved", {}), now["resolved"]
    for kind, unit in (("versions", "version"), ("weights", "weights")):
        yield from _of_steps(now["recipe"]["branches"], then.get(kind, {}), here[kind], unit)
    yield from _changed("steps of the packages", then.get("packages", []), here["packages"])
    if "tables" in then:
        yield from _changed("version of the tables", then["tables"], here["tables"])
    # other code gives another fingerprint only by one of the above
    elif "darkroom" in then and then["darkroom"] != here["darkroom"]:
        yield f"Darkroom {then['darkroom']}, now {here['darkroom']}"


def _of_recipes(before: object, now: Record) -> Iterator[str]:
    """Compare recipes as `Recipe.as_request` writes them out; their names decide nothing."""
    if not isinstance(before, Mapping) or not isinstance(before.get("branches"), Mapping):
        return
    yield from _changed("reference", before.get("reference"), now["reference"])
    then, here = before["branches"], now["branches"]
    for names, said in (([n for n in then if n not in here], "no longer"), ([n for n in here if n not in then], "new")):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            yield f"branch{'es' * (len(names) > 1)} {', '.join(names[:_NAMED])}{more} {said}"
    for name in then:
        if name in here:
            yield from _of_branches(f"branch {name}", then[name], here[name])


def _of_branches(where: str, before: Record, now: Record) -> Iterator[str]:
    then, here = before.get("steps", []), now["steps"]
    names = [[step.get("step") for step in steps] for steps in (then, here)]
    if names[0] != names[1]:
        yield f"{where}: steps {', '.join(map(str, names[0])) or 'none'}, now {', '.join(names[1]) or 'none'}"
    else:
        for one, other in zip(then, here, strict=True):
            for name in dict.fromkeys([*one, *other]):
                yield from _changed(f"{where}, step {other['step']}: {name}", one.get(name), other.get(name))
    for name, value in now.get("output", {}).items():
        yield from _changed(f"{where}: output {name}", before.get("output", {}).get(name), value)


def _of_steps(branches: Record, before: Record, now: Record, unit: str) -> Iterator[str]:
    """Compare what stands for each step of the branches that both have, where they have as many."""
    for branch, here in now.items():
        then = before.get(branch, [])
        if len(then) == len(here):
            for one, other, step in zip(then, here, branches[branch]["steps"], strict=True):
                yield from _changed(f"branch {branch}, step {step['step']}: {unit}", one, other)


def _changed(what: str, before: object, now: object) -> Iterator[str]:
    if before != now:
        yield f"{what} {_plain(before)}, now {_plain(now)}"


def _plain(value: object) -> str:
    """Write a value for people: hashes short, lists with commas, nothing as none."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = str(value)
    return text[:_DIGITS] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text
