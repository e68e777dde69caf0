"""What people see of `darkroom export`."""

from __future__ import annotations

from rich.markup import escape

from flows.display import out


def export(model: str, url: str) -> int:
    """Write a restoration model as an ONNX file and say what it is; returns the exit code."""
    from models.onnx_export import export_model

    card, size = export_model(model, url)
    out.print(
        f"[bold]{escape(card.name)}[/] ({escape(card.task)}, {card.parameters:,} parameters) is now "
        f"{escape(url)}, {size / 1e6:.1f} MB",
        soft_wrap=True,
    )
    return 0
