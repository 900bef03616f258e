"""Metrics by call, from machines whose log nobody reads metrics from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lib.asyncaws.metrics import Series, chunks
from lib.asyncaws.session import CallPolicy, call

if TYPE_CHECKING:
    from types_aiobotocore_cloudwatch import CloudWatchClient

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
_VALUES_A_DATUM = 150


class CloudWatch:
    """One namespace of CloudWatch."""

    def __init__(self, client: CloudWatchClient, *, namespace: str, policy: CallPolicy) -> None:
        self._client = client
        self._namespace = namespace
        self._policy = policy

    async def publish(self, series: Sequence[Series]) -> None:
        """Publish a batch in one call, stamped by CloudWatch with its time.

        A call takes 1,000 data in 1 MB, see `metrics.batches`:
        https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
        Repeating it after an error counts twice what arrived while its answer was lost: as bad as a gap, but rarer.

        Raises:
            TransientAwsError, PermanentAwsError: as named.
        """
        data: list[Any] = [datum for one in series for datum in _data(one)]
        await call(
            "PutMetricData",
            lambda: self._client.put_metric_data(Namespace=self._namespace, MetricData=data),
            self._policy,
        )


def _data(series: Series) -> Iterator[dict[str, Any]]:
    metric = series.metric
    for part in chunks(series.values.items(), _VALUES_A_DATUM):
        yield {
            "MetricName": metric.name,
            "Unit": metric.unit.value,
            "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions],
            "Values": [value for value, _ in part],
            "Counts": [times for _, times in part],
        }
