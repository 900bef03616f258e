"""The days as a picture: a timeline per trace and policy. SVG by hand, with colours for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from services.devstack.power import State
from services.devstack.simulation.day import Day
from services.devstack.simulation.numbers import DAY_S, HOUR_S

_WIDTH, _LEFT, _RIGHT = 1000, 84, 206
_TOP, _ROW, _HEADING, _PANEL_GAP, _BOTTOM = 66, 13, 17, 9, 26
_BAR = 10
_WIDE = 150
_AXIS = _WIDTH - _LEFT - _RIGHT

_STYLE = """\
<style>
  text { font: 11px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; } .name { font-weight: 600; font-size: 12px; }
  .dim { fill: #57606a; } .end { text-anchor: end; } .mid { text-anchor: middle; }
  .page { fill: #ffffff; stroke: #d0d7de; } .grid { stroke: #d8dee4; } .off { fill: #f3f5f7; }
  .moving { fill: #8c959f; } .idle { fill: #eac54f; } .work { fill: #2da44e; }
  .tick { stroke: #57606a; } .trouble { fill: #cf222e; fill-opacity: 0.13; }
  .killed { stroke: #cf222e; stroke-width: 2; fill: none; }
  .stranded { stroke: #cf222e; stroke-width: 1.6; fill: #ffffff; }
  .bad { fill: #cf222e; font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .dim { fill: #9198a1; }
    .page { fill: #0d1117; stroke: #30363d; } .grid { stroke: #262c36; } .off { fill: #161b22; }
    .moving { fill: #6e7681; } .idle { fill: #bb8009; } .work { fill: #3fb950; }
    .tick { stroke: #9198a1; } .trouble { fill: #ff7b72; fill-opacity: 0.16; }
    .killed { stroke: #ff7b72; } .stranded { stroke: #ff7b72; fill: #0d1117; } .bad { fill: #ff7b72; }
  }
</style>"""

_KINDS = {State.PENDING: "moving", State.STOPPING: "moving", State.RUNNING: "idle"}


def svg(days: Sequence[Day], *, caption: str) -> str:
    """The picture `docs/simulation.svg`; `days` are grouped by trace."""
    panels = [list(group) for _, group in groupby(days, key=lambda day: day.trace.name)]
    height = _TOP + sum(_panel_height(panel) for panel in panels) + _BOTTOM
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(caption)}</title>",
        _STYLE,
        f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>',
        _text(16, 25, caption, "title"),
        *_legend(),
        *_hours(height),
    ]
    top = _TOP
    for panel in panels:
        parts += _panel(panel, top)
        top += _panel_height(panel)
    return "\n".join([*parts, "</svg>", ""])


def _panel_height(panel: Sequence[Day]) -> int:
    return _HEADING + len(panel) * _ROW + _PANEL_GAP


def _legend() -> Iterator[str]:
    x, y = 16, 46
    for kind, label in (("work", "job in work"), ("idle", "on, no job"), ("moving", "starting, stopping")):
        yield f'<rect class="{kind}" x="{x}" y="{y - 9}" width="14" height="{_BAR}"/>'
        yield _text(x + 19, y, label, "dim")
        x += 34 + 6 * len(label)
    yield _cross(x + 5, y - 4)
    yield _text(x + 14, y, "job killed in mid-work", "dim")
    yield _ring(x + 151, y - 4)
    yield _text(x + 160, y, "job that never ends (at its arrival)", "dim")
    yield f'<path class="tick" d="M{x + 366} {y - 8}v7"/>'
    yield _text(x + 372, y, "arrival", "dim")
    yield f'<rect class="trouble" x="{x + 424}" y="{y - 9}" width="14" height="{_BAR}"/>'
    yield _text(x + 443, y, "trouble outside", "dim")


def _hours(height: int) -> Iterator[str]:
    for hour in range(0, 25, 3):
        x = _x(hour * HOUR_S)
        yield f'<path class="grid" d="M{x} {_TOP - 2}V{height - _BOTTOM + 2}"/>'
        yield _text(x, height - 9, f"{hour:02}:00", "dim mid")


def _panel(panel: Sequence[Day], top: int) -> Iterator[str]:
    trace = panel[0].trace
    yield _text(16, top + 11, trace.name, "name")
    rows_top = top + _HEADING
    ticks = "".join(f"M{_x(job.at_s)} {rows_top - 6}v5" for job in trace.jobs)
    yield f'<path class="tick" d="{ticks}"/>'
    for number in range(len(panel)):
        yield f'<rect class="off" x="{_LEFT}" y="{rows_top + number * _ROW}" width="{_AXIS}" height="{_BAR}"/>'
    for label, span in trace.troubles:
        x, width = _x(span.since_s), _x(span.until_s) - _x(span.since_s)
        tall = len(panel) * _ROW
        yield f'<rect class="trouble" x="{x}" y="{rows_top - 1}" width="{width:.1f}" height="{tall}"/>'
        in_middle = width > _WIDE
        yield _text(x + width / 2 if in_middle else x + 24, top + 10, label, "dim mid" if in_middle else "dim")
    for at_s in trace.manual_starts_s:
        yield _text(_x(at_s) - 3, rows_top - 5, "▾ started by hand", "dim")
    for number, day in enumerate(panel):
        yield from _row(day, rows_top + number * _ROW)


def _row(day: Day, top: int) -> Iterator[str]:
    yield _text(_LEFT - 6, top + 9, day.policy, "dim end")
    for part in day.history:
        if part.state in _KINDS:
            yield _bar(_KINDS[part.state], part.since_s, part.until_s or DAY_S, top)
    for span in day.work:
        yield _bar("work", span.since_s, span.until_s, top)
    for at_s in day.killed_at_s:
        yield _cross(_x(at_s), top + 5)
    for at_s in day.stranded_at_s:
        yield _ring(_x(at_s), top + 5)
    yield _text(_LEFT + _AXIS + 58, top + 9, f"${day.usd:.2f}", "end")
    bad = [f"{len(day.killed_at_s)} killed"] * bool(day.killed_at_s)
    bad += [f"{len(day.stranded_at_s)} stranded"] * bool(day.stranded_at_s)
    if bad:
        yield _text(_LEFT + _AXIS + 68, top + 9, ", ".join(bad), "bad")


def _bar(kind: str, since_s: float, until_s: float, top: int) -> str:
    x = _x(since_s)
    # Half a pixel is a minute: what is shorter shall be seen as well.
    return f'<rect class="{kind}" x="{x}" y="{top}" width="{max(_x(until_s) - x, 0.7):.1f}" height="{_BAR}"/>'


def _cross(x: float, y: float) -> str:
    return f'<path class="killed" d="M{x - 4:.1f} {y - 4}l8 8m0 -8l-8 8"/>'


def _ring(x: float, y: float) -> str:
    return f'<circle class="stranded" cx="{x:.1f}" cy="{y}" r="3.6"/>'


def _text(x: float, y: float, text: str, classes: str) -> str:
    return f'<text class="{classes}" x="{x:.1f}" y="{y}">{escape(text)}</text>'


def _x(at_s: float) -> float:
    return round(_LEFT + _AXIS * at_s / DAY_S, 1)
