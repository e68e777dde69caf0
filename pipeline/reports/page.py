"""The parts of every page: templates, style sheets and scripts that ship here, all in one file."""

from __future__ import annotations

import functools

import jinja2

from pipeline.reports.text import duration, moment, number, size


@functools.cache
def environment() -> jinja2.Environment:
    """Return the templates, compiled once, every value escaped, with the filters that write numbers for people."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"number": number, "size": size, "duration": duration, "moment": moment}
    return templates


def asset(name: str) -> str:
    """Return the text of a style sheet or script that ships beside the templates."""
    loader = jinja2.PackageLoader("pipeline.reports", "templates")
    return loader.get_source(jinja2.Environment(autoescape=True), name)[0].strip()
