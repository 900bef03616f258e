"""Whether we look at the right place, by a right clock."""

from __future__ import annotations

from collections.abc import Iterator

from services.doctor.deployment import Deployment
from services.doctor.facts import Identity
from services.doctor.finding import Finding, broken, fine, span, warning

# A signature more than 5 minutes off is refused.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
_REFUSED_SKEW_S = 300
# The Date header tells seconds, and the way there and back takes some.
_NOTICED_SKEW_S = 5


def judge_identity(identity: Identity, deployment: Deployment) -> Iterator[Finding]:
    """Account and region, against those in the queues' addresses."""
    addresses = (deployment.queue, deployment.dead_letters)
    accounts = {address.account for address in addresses}
    if accounts == {identity.account}:
        yield fine("identity", f"account {identity.account}, as {identity.arn}")
    else:
        others = ", ".join(sorted(accounts - {identity.account}))
        yield broken(
            "identity",
            f"the queues are in account {others}, these credentials in {identity.account} ({identity.arn})",
            fix=f"use credentials of account {others}: set AWS_PROFILE",
        )
    regions = {address.region for address in addresses if address.region}
    if regions <= {deployment.region}:
        yield fine("region", deployment.region)
    else:
        others = ", ".join(sorted(regions - {deployment.region}))
        yield broken(
            "region", f"the queues are in {others}, not in {deployment.region}", fix=f"set AWS_REGION={others}"
        )


def judge_clock(skew_s: float | None) -> Iterator[Finding]:
    """This machine's clock against the dates of AWS's answers."""
    if skew_s is None:
        return
    said = f"this machine's clock is {span(abs(skew_s))} {'ahead' if skew_s > 0 else 'behind'}"
    if abs(skew_s) > _REFUSED_SKEW_S:
        refusal = f"AWS refuses signatures that are more than {_REFUSED_SKEW_S // 60} min off"
        yield broken("clock", f"{said}: {refusal}", fix="sudo timedatectl set-ntp true")
    elif abs(skew_s) > _NOTICED_SKEW_S:
        yield warning("clock", said, fix="sudo timedatectl set-ntp true")
    else:
        yield fine("clock", "this machine's clock agrees with AWS's")
