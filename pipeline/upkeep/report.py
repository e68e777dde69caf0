"""The page of `darkroom verify --report`: one self-contained HTML file in the manner of a run's report."""

from __future__ import annotations

from datetime import UTC, datetime

from markupsafe import Markup

from pipeline.reports.page import asset, environment
from pipeline.reports.text import counted
from pipeline.upkeep.check import Verification

#: findings shown; --json has all of them
_SHOWN = 500


def render_verification(found: Verification) -> str:
    """Render the page of a verification as HTML text (UTF-8 encodable)."""
    page = (
        environment()
        .get_template("verification.html")
        .render(
            found=found,
            counted=counted,
            shown=found.findings[:_SHOWN],
            when=datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
            css=Markup(asset("report.css")),
        )
    )
    return page.encode("utf-8", "replace").decode()
