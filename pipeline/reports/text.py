"""Numbers, bytes, times and counts as text for people."""

from __future__ import annotations

from datetime import UTC, datetime

MISSING = "—"


def number(value: float | None, digits: int = 0) -> str:
    """Write a number for people: 1234.5 -> "1,234.5"; None -> "—"."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def size(count: float | None) -> str:
    """Write a number of bytes for people, in powers of 1000: 1234567 -> "1.23 MB"; None -> "—"."""
    if count is None:
        return MISSING
    if count < 999.5:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.5 or unit == "TB":
            break
    return f"{count:.3g} {unit}" if count < 100 else f"{count:,.0f} {unit}"


def duration(seconds: float | None) -> str:
    """Write seconds for people: "0.42 s", "12.3 s", "3 min 07 s", "2 h 05 min"; None -> "—"."""
    if seconds is None:
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(iso: str | None) -> str:
    """Write an ISO 8601 time as "28 July 2026, 14:03 UTC"; text that is no such time is returned as it is."""
    if not iso:
        return MISSING
    try:
        time = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def counted(number: int, noun: str) -> str:
    """Write a count with its noun: "1 run", "2,000 runs"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
