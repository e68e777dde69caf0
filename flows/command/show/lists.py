"""`darkroom recipes`, `steps` and `models`: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from flows.command.console import out, present

if TYPE_CHECKING:
    from pipeline.steps.registry import Step


def recipes() -> int:
    """Shipped recipes: a chain of step names for every branch."""
    from pipeline.requests.offers import shipped_recipes
    from pipeline.requests.recipe import load_recipe

    present([load_recipe(name).as_dict() | {"name": name} for name in shipped_recipes()], _print_recipes)
    return 0


def _print_recipes() -> None:
    from pipeline.requests.offers import shipped_recipes
    from pipeline.requests.recipe import load_recipe

    for name in shipped_recipes():
        recipe = load_recipe(name)
        # not the table's title, which would break at the table's width
        out.print(f"[bold]{name}[/]  [dim]compared with {recipe.reference}[/]")
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
        for branch in recipe.branches:
            table.add_row(branch.name, " → ".join(_chain(s.step.name, s.parameters) for s in branch.steps))
        out.print(table)


def steps(name: str | None) -> int:
    """All steps, a line each; or one step's parameters with their defaults and bounds."""
    from pipeline.requests.catalogue import all_steps, find

    if name is None:
        every = [_about(step) for step in all_steps()]
        present(every, lambda: _print_steps(every))
        return 0
    step = find(name)
    schema = step.parameters.model_json_schema().get("properties", {})
    about = _about(step) | {"parameters": schema}
    present(about, lambda: _print_step(about))
    return 0


def _about(step: Step) -> dict[str, Any]:
    of = {"package": step.package} if step.package else {}
    return {"name": step.name, "kind": step.kind, "summary": step.summary} | of


def _print_steps(every: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("step", "kind", "what it does"):
        table.add_column(column)
    for step in every:
        table.add_row(f"[bold]{step['name']}[/]", step["kind"], escape(_summary(step)))
    out.print(table)
    out.print("[dim]darkroom steps NAME shows a step's parameters[/]")


def _summary(step: dict[str, Any]) -> str:
    return f"{step['summary']} (from {step['package']})" if "package" in step else step["summary"]


def _print_step(step: dict[str, Any]) -> None:
    out.print(f"[bold]{step['name']}[/]  {escape(_summary(step))}")
    table = Table(box=None, pad_edge=False)
    for column in ("parameter", "type", "default", "meaning"):
        table.add_column(column)
    for field, about in step["parameters"].items():
        table.add_row(
            field,
            escape(_kind(about)),
            escape(str(about.get("default", "required"))),
            escape(about.get("description", "")),
        )
    out.print(table)


def models(name: str | None) -> int:
    """Shipped models, a line each; or what one's card says: its data, licence and measured figures."""
    from models.cards import list_cards

    cards = list_cards()
    if name is None:
        present(cards, lambda: _print_models(cards))
        return 0
    card = next((card for card in cards if card.name == name), None)
    if card is None:
        # one that is not shipped is read from its URL
        from models.registry import load_model
        from pipeline.storage.files import StoredFiles

        card = load_model(name, files=StoredFiles()).card
    present(card, lambda: _print_model(card))
    return 0


def _print_models(cards: list[Any]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("model", style="bold", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("what it is")
    for card in cards:
        table.add_row(escape(card.name), f"{card.parameters:,}", escape(card.summary))
    out.print(table)
    out.print("[dim]darkroom models NAME shows what was measured of one, and what it was trained on[/]")


def _print_model(card: Any) -> None:
    out.print(f"[bold]{escape(card.name)}[/]  {escape(card.summary)}")
    facts = {"task": card.task, "parameters": f"{card.parameters:,}", "trained on": card.data}
    facts |= {"licence of the data": card.licence} | ({"notes": card.notes} if card.notes else {}) | card.figures
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(escape(name), escape(str(value)))
    out.print(table)
    if card.command:
        out.print(f"measured by  {escape(card.command)}", soft_wrap=True)


def _chain(name: str, parameters: Any) -> str:
    given = ", ".join(f"{k} {v}" for k, v in parameters.model_dump(exclude_defaults=True).items())
    return name + (f" [dim]({escape(given)})[/]" if given else "")


def _kind(about: dict[str, Any]) -> str:
    options = about.get("enum") or [part.get("type", "") for part in about.get("anyOf", [])]
    kind = " | ".join(map(str, options)) or about.get("type", "")
    low = about.get("minimum", about.get("exclusiveMinimum"))
    high = about.get("maximum", about.get("exclusiveMaximum"))
    return kind + (f" {low}..{high}" if low is not None and high is not None else "")
