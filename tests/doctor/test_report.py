from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from services.doctor.finding import Finding, Mark, broken, fine, span, warning
from services.doctor.report import is_well, print_report, render_json

LONG = "aws sqs set-queue-attributes " + "x" * 300
FINDINGS = [
    fine("queue", "[bold]gpu_tasks_queue[/bold]"),
    broken("queue visibility", "60 s", fix=LONG),
    warning("table ttl", "off", fix="on"),
    Finding(Mark.UNSEEN, "alarm", "could not look", "allow it"),
]


def printed(*, terminal: bool) -> str:
    target = io.StringIO()
    print_report(
        FINDINGS,
        Console(file=target, force_terminal=terminal, width=80, color_system="standard" if terminal else "auto"),
    )
    return target.getvalue()


def test_a_line_each_and_one_on_all() -> None:
    assert printed(terminal=False).splitlines() == [
        "ok       queue             [bold]gpu_tasks_queue[/bold]",
        f"broken   queue visibility  60 s  fix: {LONG}",
        "warning  table ttl         off  fix: on",
        "unseen   alarm             could not look  fix: allow it",
        "1 ok, 1 warning, 1 broken, 1 unseen",
    ]


def test_colours_on_a_terminal_only() -> None:
    assert "\x1b[" not in printed(terminal=False)
    assert "\x1b[1;31mbroken" in printed(terminal=True)
    assert len(printed(terminal=True).splitlines()) == 5


def test_json_has_the_same() -> None:
    document = json.loads(render_json(FINDINGS))
    assert document["ok"] is False
    assert document["findings"][1] == {"mark": "broken", "check": "queue visibility", "text": "60 s", "fix": LONG}


@pytest.mark.parametrize(
    ("mark", "well"), [(Mark.OK, True), (Mark.WARNING, True), (Mark.BROKEN, False), (Mark.UNSEEN, False)]
)
def test_only_what_is_broken_or_unseen_is_not_well(mark: Mark, well: bool) -> None:
    assert is_well([fine("a", "b"), Finding(mark, "c", "d", "e")]) is well


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (345_600, "4 days")],
)
def test_spans_as_people_say_them(seconds: float, said: str) -> None:
    assert span(seconds) == said
