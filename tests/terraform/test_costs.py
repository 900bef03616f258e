"""The guide's prices are those that Terraform adds up for the same variables."""

from __future__ import annotations

import re

import pytest

from tests.terraform.cli import CONFIGURATION
from tests.terraform.guide import GUIDE
from tests.terraform.hcl import default

COLUMNS = ("fargate", "private", "instance")
# The guide's row -> Terraform's part.
ROWS = {
    "load balancer, two addresses": "load_balancer",
    "VPC endpoints": "vpc_endpoints",
    "alarms": "alarms",
    "DNS zone": "dns_zone",
    "**asleep all month**": "total",
}


def rows(header: str) -> dict[str, list[str]]:
    """The cells of the table below a line that begins so, by their row's first one."""
    below = GUIDE.read_text().partition(f"\n{header}")[2].partition("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in below.splitlines()[2:]]
    return {first: cells for first, *cells in lines}


def asserted(run: str) -> dict[str, str]:
    """What `terraform test` has compared its output with."""
    source = (CONFIGURATION / "tests/costs.tftest.hcl").read_text()
    body = re.search(rf'^run "{run}" {{\n(.*?)^}}', source, re.MULTILINE | re.DOTALL)
    assert body is not None
    return dict(re.findall(r'^ +(\w+) += "([\d.]+)"$', body[1], re.MULTILINE))


@pytest.mark.parametrize(("column", "run"), list(enumerate(COLUMNS)), ids=COLUMNS)
def test_a_month_asleep_costs_what_terraform_adds_up(column: int, run: str) -> None:
    told = {first: cells[column].strip("*") for first, cells in rows("| | Fargate (default)").items()}
    expected = asserted(run)
    orchestrator = expected.get("orchestrator_fargate") or expected["orchestrator_instance"]
    assert told["orchestrator"] == orchestrator
    assert {first: told[first] for first in ROWS} == {first: expected.get(part, "") for first, part in ROWS.items()}


def test_a_new_gpus_volume_is_paid_by_its_size(sources: dict[str, str]) -> None:
    size_gb = int(default(sources, "gpu_volume_gb"))
    told = rows("| | Fargate (default)")[f"a new GPU's {size_gb} GB, also asleep"]
    assert told == [f"{0.08 * size_gb:.2f}"] * len(COLUMNS)


def test_an_hour_of_the_gpu_is_counted_at_its_own_price(sources: dict[str, str]) -> None:
    prices = dict(re.findall(r'"([\w.]+)" = ([\d.]+)', sources["costs.tf"]))
    hour_usd = float(prices[default(sources, "gpu_instance_type")])
    told = rows("| the GPU | hours a month")
    assert len(told) == 4
    for hours, month in told.values():
        assert month == f"{float(hours) * hour_usd:,.2f}"
