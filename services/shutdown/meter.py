"""What the Lambda measures, as lines on standard output that CloudWatch Logs reads metrics from: no call is needed.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
The names are those of the other services, so that failures add up whoever counts them.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence


class Meter:
    """One method for each thing that happens; each writes a line at once, since it happens a few times a day."""

    def __init__(self, *, namespace: str, write: Callable[[str], None]) -> None:
        self._namespace = namespace
        self._write = write

    def failed(self, cause: str) -> None:
        """A task was failed: counted once in all, and once by its cause."""
        self._count("JobsFailed", [[], ["Cause"]], {"Cause": cause})

    def stopped(self, rule: str) -> None:
        """The instance ran and was stopped, or its stop hung and was forced."""
        self._count("GpuStopped", [["Rule"]], {"Rule": rule})

    def _count(self, name: str, dimensions: Sequence[Sequence[str]], values: dict[str, str]) -> None:
        directive = {
            "Namespace": self._namespace,
            "Dimensions": dimensions,
            "Metrics": [{"Name": name, "Unit": "Count"}],
        }
        root = {"_aws": {"Timestamp": round(time.time() * 1000), "CloudWatchMetrics": [directive]}, **values, name: 1}
        self._write(json.dumps(root, separators=(",", ":")))


def write_line(line: str) -> None:
    """To standard output, from where the Lambda runtime hands it to CloudWatch Logs."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def write_nothing(line: str) -> None:
    """Nobody wants to know."""
    del line
