"""What can be wrong with the set-up; everything else that fails is the SDK's own error, raised as it is.

A Lambda invoked asynchronously is retried and counted only if it raises: no function here returns an error.
"""


class SettingError(Exception):
    """A variable of the environment is missing or wrong: somebody must change the configuration."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable}: {problem}")
        self.variable = variable


class QueueUnseenError(Exception):
    """The queue did not answer. What was right without it is done; but somebody must see to it."""


class TableUnreadableError(Exception):
    """The table did not answer. It is the evidence of every rule but one: see ``decision.decide_blind``."""


class HoldNotWrittenError(Exception):
    """The instance is stopped, but the hold on its starts could not be written: it may be started again at once."""


class InstanceNotFoundError(Exception):
    """EC2 knows no such instance: GPU_INSTANCE_ID, the region or the account is wrong."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(f"GPU_INSTANCE_ID: EC2 knows no instance {instance_id!r} in this account and region")
