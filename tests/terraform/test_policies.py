"""Policies that others have written down: a selection of checkov's, which judges the configuration offline.

Left out on purpose are those that cost without need here (customer-managed keys at $1 a month each, flow logs, WAF,
cross-region copies) and those that a variable decides. What is skipped is skipped in the code, with its reason.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.absence import absent
from tests.terraform.cli import CONFIGURATION, clean_environment

CHECKOV = CONFIGURATION.parent / ".venv-checkov/bin/checkov"

CHECKS = {
    "CKV_AWS_8": "volumes are encrypted",
    "CKV_AWS_19": "so is the bucket",
    "CKV_AWS_27": "so are the queues",
    "CKV2_AWS_34": "so are parameters",
    "CKV_AWS_28": "the table can be restored to a point in time",
    "CKV_AWS_79": "IMDSv2 only",
    "CKV_AWS_24": "no SSH from everywhere",
    "CKV_AWS_25": "no RDP from everywhere",
    "CKV_AWS_277": "never all ports from everywhere",
    "CKV_AWS_23": "each rule says what it is for",
    "CKV2_AWS_12": "the default security group lets nothing through",
    "CKV_AWS_2": "the balancer serves HTTPS",
    "CKV_AWS_103": "with TLS 1.2 at least",
    "CKV2_AWS_74": "and strong ciphers",
    "CKV2_AWS_20": "HTTP only redirects",
    "CKV_AWS_131": "malformed headers are dropped",
    "CKV_AWS_328": "and ambiguous requests",
    "CKV_AWS_49": "no policy allows every action",
    "CKV_AWS_63": "nor one in a role",
    "CKV_AWS_109": "none lets permissions be changed",
    "CKV_AWS_110": "or privileges be raised",
    "CKV_AWS_111": "or everything be written",
    "CKV_AWS_356": "no restrictable action is allowed on everything",
    "CKV_AWS_274": "nobody is administrator",
    "CKV_AWS_60": "roles are for certain services",
    "CKV_AWS_61": "never for all",
    "CKV_AWS_168": "queues are not public",
    "CKV_AWS_387": "not by a wildcard either",
    "CKV_AWS_301": "the function is not public",
    "CKV_AWS_364": "services invoke it for one source each",
    "CKV_AWS_116": "events it could not handle are kept",
    "CKV_AWS_363": "its runtime is supported",
    "CKV_AWS_45": "no secret in its environment",
    "CKV_AWS_46": "nor in user data",
    "CKV_AWS_66": "logs are kept for a time that is said",
    "CKV_AWS_319": "alarms act",
    "CKV2_AWS_6": "the bucket is closed to the public",
    "CKV_AWS_163": "images are scanned",
    "CKV_AWS_249": "who starts the container is not who runs in it",
    "CKV_AWS_336": "it cannot write to its own files",
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, list[dict[str, Any]]]:
    if not CHECKOV.exists():
        absent(f"no {CHECKOV}: make .venv-checkov/.installed")
    command = [
        str(CHECKOV),
        "--directory",
        str(CONFIGURATION),
        "--framework",
        "terraform",
        "--skip-download",
        "--compact",
    ]
    run = subprocess.run(
        [*command, "--output=json", f"--check={','.join(CHECKS)}"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    results: dict[str, list[dict[str, Any]]] = json.loads(run.stdout)["results"]
    return results


def test_no_policy_is_broken(verdicts: dict[str, list[dict[str, Any]]]) -> None:
    broken = [
        (verdict["check_id"], CHECKS[verdict["check_id"]], verdict["resource"]) for verdict in verdicts["failed_checks"]
    ]
    assert broken == []
    assert verdicts["parsing_errors"] == []


def test_every_policy_was_looked_at(verdicts: dict[str, list[dict[str, Any]]]) -> None:
    """A check that was renamed, or finds nothing to judge, would be silent."""
    looked_at = {verdict["check_id"] for verdict in verdicts["passed_checks"] + verdicts["skipped_checks"]}
    assert set(CHECKS) - looked_at == set()


def test_what_is_skipped_says_why(verdicts: dict[str, list[dict[str, Any]]]) -> None:
    reasons = [verdict["check_result"]["suppress_comment"] for verdict in verdicts["skipped_checks"]]
    assert all(len(reason.split()) > 5 for reason in reasons)
    assert [verdict["resource"] for verdict in verdicts["skipped_checks"]] == ["aws_lambda_function.shutdown"]
