"""Since when the table has not been readable: the one fact that the table itself cannot keep.

It is a tag of the instance, since a Lambda forgets and the instance is what the fact is about.
"""

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from services.shutdown import log
from services.shutdown.facts import CLOCK_SKEW_S

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import InstanceTypeDef

TAG = "gpu-on-demand:table-unreadable-since"


class OutageTag:
    """Reads, sets and removes the tag. One that cannot be written costs patience, never the stop."""

    def __init__(self, *, ec2: "EC2Client", instance_id: str) -> None:
        self._ec2 = ec2
        self._instance_id = instance_id
        self._began_at: float | None = None

    def since(self, instance: "InstanceTypeDef", *, now: float, launched_at: float) -> float:
        """Since when; begins now if no tag says otherwise. Epoch seconds.

        Where the tag may not be written, as before an upgrade is applied, what this process remembers has to do.
        Counted from the launch instead, one failed look would stop an instance in the middle of its work.
        """
        noted = _noted(instance, now)
        if noted is not None:
            return max(noted, launched_at)  # a tag of an earlier launch says nothing of this one
        self._began_at = max(self._began_at or now, launched_at)
        try:
            tag = {"Key": TAG, "Value": f"{now:.0f}"}
            self._ec2.create_tags(Resources=[self._instance_id], Tags=[tag])  # type: ignore[list-item]
        except (ClientError, BotoCoreError) as exc:
            log.warning("outage.not_noted", error=str(exc))
        else:
            log.warning("outage.began")
        return self._began_at

    def end(self, instance: "InstanceTypeDef") -> None:
        """The table is readable. A call is made only where a tag says otherwise."""
        self._began_at = None
        if all(tag.get("Key") != TAG for tag in instance.get("Tags", [])):
            return
        try:
            self._ec2.delete_tags(Resources=[self._instance_id], Tags=[{"Key": TAG}])
        except (ClientError, BotoCoreError) as exc:
            log.warning("outage.end_not_noted", error=str(exc))
        else:
            log.info("outage.ended")


def _noted(instance: "InstanceTypeDef", now: float) -> float | None:
    for tag in instance.get("Tags", []):
        if tag.get("Key") == TAG:
            try:
                noted = float(tag.get("Value", ""))
            except ValueError:
                return None
            return noted if 0 < noted <= now + CLOCK_SKEW_S else None
    return None
