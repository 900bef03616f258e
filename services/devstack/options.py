"""What a caller can choose of a devstack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.devstack.python_module import module_command


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How fast, how big, and with which quirks.

    Attributes:
        scale: how many times faster than in AWS the clocks of alarm, schedule, idle window and waker run; 120 turns the
            30 minutes of rule A into 15 s. Jobs, boots and network calls take as long as they take.
        boot_s: from `running` to the start of the units.
        pending_s: from StartInstances to `running`.
        power_cut_s: longest `stopping`.
        visibility_s: the queue's visibility timeout and the adapter's lease, whole seconds.
        max_receive_count: receives before a message is dead; several times the attempts, since a message may also be
            received and handed back untouched.
        port: the orchestrator's; 0 takes a free one.
        api_keys: client name -> the key in clear.
        log_dir: where each process logs to `<name>.log`; None: a new temporary folder, removed in the end.
        orchestrator_env, adapter_env, upstream_env, lambda_env: variables on top of the computed ones.
        orchestrator_command, adapter_command, upstream_command, lambda_handler: what is run.
    """

    scale: float = 120.0
    boot_s: float = 1.0
    pending_s: float = 0.5
    power_cut_s: float = 30.0
    visibility_s: int = 6
    max_receive_count: int = 10
    port: int = 0
    api_keys: Mapping[str, str] = field(default_factory=dict)
    log_dir: Path | None = None
    orchestrator_env: Mapping[str, str] = field(default_factory=dict)
    adapter_env: Mapping[str, str] = field(default_factory=dict)
    upstream_env: Mapping[str, str] = field(default_factory=dict)
    lambda_env: Mapping[str, str] = field(default_factory=dict)
    orchestrator_command: Sequence[str] = module_command("services.orchestrator")
    adapter_command: Sequence[str] = module_command("services.adapter")
    upstream_command: Sequence[str] = module_command("services.devstack.upstream")
    lambda_handler: str = "services.shutdown.handler.handler"
