"""The locks of what is deployed: parts of the one lock that everything is tested with, and complete."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
SERVICES = ("adapter", "orchestrator")


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_deployed_is_what_was_tested(service: str) -> None:
    tested, deployed = pins("requirements.lock"), pins(f"requirements-{service}.lock")
    assert deployed.items() <= tested.items()


@pytest.mark.parametrize("service", SERVICES)
def test_all_that_the_service_needs_is_there_and_none_of_the_tools(service: str) -> None:
    locked = set(pins(f"requirements-{service}.lock"))
    assert needed_by("gpu-on-demand", service) | needed_by("hatchling") <= locked
    assert not locked & {"boto3", "moto", "mypy", "pytest", "ruff"}


def pins(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Version, with its marker, and hashes of each package."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / name).read_text()):
        requirement, *hashes = entry.replace("\\\n", "").split("--hash=")
        package, _, version = requirement.strip().partition("==")
        # A lock for one service may give a package a narrower marker; what is compared is what would be installed.
        found[canonicalize_name(package)] = (
            version.partition(";")[0].strip(),
            frozenset(part.strip() for part in hashes),
        )
    return found


def needed_by(package: str, extra: str = "") -> set[str]:
    """The closure of a package's requirements on this machine."""
    found: set[str] = set()
    for text in requires(package) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            name = canonicalize_name(requirement.name)
            if name not in found:
                found |= {name} | needed_by(name)
    return found
