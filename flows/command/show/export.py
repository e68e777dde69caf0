"""What people see of `darkroom export`."""

from __future__ import annotations

from rich.markup import escape

from flows.command.console import out, present


def export(model: str, url: str) -> int:
    """Write a restoration model as an ONNX file and say what it is; returns the exit code."""
    from models.onnx.export import export_model
    from pipeline.storage.files import StoredFiles

    files = StoredFiles()
    files.check_writable(url)
    card, size = export_model(model, url, files)
    text = (
        f"[bold]{escape(card.name)}[/] ({escape(card.task)}, {card.parameters:,} parameters) is now "
        f"{escape(url)}, {size / 1e6:.1f} MB"
    )
    present({"model": card.name, "task": card.task, "url": url, "bytes": size}, lambda: out.print(text, soft_wrap=True))
    return 0
