"""Every flow as a server has it: its form made of the request, and loaded from its file by whoever runs it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.runs import ROOT, python

LOAD = """
import json, sys
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

for name in sys.argv[1:]:
    flow = load_flow_from_entrypoint(f"flows/{name}.py:{name}", use_placeholder_flow=False)
    schema = parameter_schema(flow).model_dump()
    print(json.dumps([flow.name, schema["required"], sorted(schema["definitions"])]))
"""


def flow_modules() -> list[str]:
    """The modules of `flows` that hold a flow of their own name."""
    return sorted(path.stem for path in (ROOT / "flows").glob("*.py") if f"@flow(name={_quoted(path)}" in _text(path))


def _quoted(path: Path) -> str:
    return json.dumps(path.stem)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_every_flow_can_be_served() -> None:
    """Loaded by path, as workers do it, its annotations are understood and its form has the request's fields."""
    names = flow_modules()
    assert {"develop", "compress", "decompress", "evaluate", "explore", "train"} <= set(names)
    for name, line in zip(names, python(LOAD, *names).splitlines(), strict=True):
        found, required, definitions = json.loads(line)
        assert (found, required) == (name, ["request"])
        assert any(definition.endswith("Request") for definition in definitions), definitions
