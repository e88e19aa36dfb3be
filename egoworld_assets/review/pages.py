"""Turns what was found into HTML: the templates of this package, in which every string is escaped."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

SIGNS = {
    "done": "✓",
    "stale": "↺",
    "failed": "✗",
    "dead letter": "☠",
    "blocked": "⏸",
    "missing": "…",
    "pending": "…",
    "damaged": "⚠",
    "unreadable": "?",
}
"""Beside the word of each state, so that none is told by its colour alone."""
VERDICT_SIGNS = {"good": "✓", "bad": "✗", "unsure": "?"}
"""Likewise of each verdict."""


def number(value: float | None) -> str:
    """A metric in four digits; a dash where there is none."""
    return "–" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.1f} s"
    return str(timedelta(seconds=round(seconds)))


def share(part: int, whole: int) -> str:
    """Percent, rounded down, so that 100 % means all."""
    return f"{100 * part // whole if whole else 0} %"


_TEMPLATES = Environment(loader=PackageLoader("egoworld_assets.review"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
_TEMPLATES.filters.update(number=number, duration=duration, segment=lambda name: quote(name, safe=""))
_TEMPLATES.globals.update(signs=SIGNS, verdict_signs=VERDICT_SIGNS, share=share)


def page(template: str, code: int = 200, **values: Any) -> HTMLResponse:
    """The answer made of a template."""
    return HTMLResponse(_TEMPLATES.get_template(f"{template}.html").render(**values), code)
