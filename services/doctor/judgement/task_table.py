"""The table that is the only truth: its keys, its index, and what protects it."""

from __future__ import annotations

from collections.abc import Iterator

from lib.gputask.schema import STATUS_INDEX, STATUS_INDEX_ATTRIBUTES, STATUS_INDEX_KEY, TABLE_KEY, TTL_ATTRIBUTE
from services.doctor.deployment import Deployment
from services.doctor.facts import Absent, Index, Seen, Table, Unseen
from services.doctor.finding import Finding, broken, fine, warning

_BODY = "request_body"

_MAKE_INDEX = "projections cannot be changed: delete the index and let `terraform apply` make it"


def judge_table(table: Table, deployment: Deployment) -> Iterator[Finding]:
    """Key, index and deletion protection."""
    if table.key == (TABLE_KEY,):
        yield fine("table", f"{deployment.table}, key {TABLE_KEY}")
    else:
        fix = "keys cannot be changed: let `terraform apply` make a table of another name"
        yield broken("table", f"{deployment.table} has the key {', '.join(table.key)}, not {TABLE_KEY}", fix=fix)
    yield _judge_index(table.indexes.get(STATUS_INDEX))
    if table.is_protected:
        yield fine("table protection", "deletion protection is on")
    else:
        fix = deployment.aws(
            "dynamodb", "update-table", "--table-name", deployment.table, "--deletion-protection-enabled"
        )
        yield warning("table protection", "deletion protection is off", fix=fix)


def _judge_index(index: Index | None) -> Finding:
    if index is None:
        return broken("table index", f"there is no index {STATUS_INDEX}", fix="let `terraform apply` make it")
    if index.key != STATUS_INDEX_KEY:
        text = f"{STATUS_INDEX} has the key {', '.join(index.key)}, not {', '.join(STATUS_INDEX_KEY)}"
        return broken("table index", text, fix=_MAKE_INDEX)
    missing = set(STATUS_INDEX_ATTRIBUTES) - index.attributes
    if index.projection != "ALL" and missing:
        text = f"{STATUS_INDEX} lacks {', '.join(sorted(missing))}, which decisions read from it"
        return broken("table index", text, fix=_MAKE_INDEX)
    if index.projection == "ALL" or _BODY in index.attributes:
        return warning(
            "table index", f"{STATUS_INDEX} holds the request bodies: each write is paid twice", fix=_MAKE_INDEX
        )
    return fine("table index", f"{STATUS_INDEX}, without bodies")


def judge_ttl(ttl: Seen[str], deployment: Deployment) -> Iterator[Finding]:
    """Records must go some day; TTL does it for nothing."""
    if isinstance(ttl, Unseen):
        return
    if ttl == TTL_ATTRIBUTE:
        yield fine("table ttl", f"on {TTL_ATTRIBUTE}")
        return
    words = ("dynamodb", "update-time-to-live", "--table-name", deployment.table, "--time-to-live-specification")
    fix = deployment.aws(*words, f"Enabled=true,AttributeName={TTL_ATTRIBUTE}")
    if isinstance(ttl, Absent):
        yield warning("table ttl", "off: records are kept, and paid for, for ever", fix=fix)
    else:
        # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html: one attribute a table.
        text = f"on {ttl}, which no record of ours has: records are kept, and paid for, for ever"
        yield warning("table ttl", text, fix=f"switch TTL on {ttl} off, then, an hour later: {fix}")


def judge_recovery(is_on: bool, deployment: Deployment) -> Iterator[Finding]:
    """Point-in-time recovery."""
    if is_on:
        yield fine("table recovery", "point-in-time recovery is on")
        return
    words = ("dynamodb", "update-continuous-backups", "--table-name", deployment.table)
    fix = deployment.aws(*words, "--point-in-time-recovery-specification", "PointInTimeRecoveryEnabled=true")
    yield warning("table recovery", "point-in-time recovery is off: a wrong write cannot be undone", fix=fix)
