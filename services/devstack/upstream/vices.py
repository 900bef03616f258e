"""What goes wrong on purpose. Everything is off unless asked for, and repeatable by its seed."""

from dataclasses import dataclass, field
from random import Random
from uuid import uuid4


class RefusedError(Exception):
    """The server takes no jobs now."""


@dataclass(frozen=True, slots=True)
class Vices:
    """Faults to show. A marker is a text; a job whose prompt contains it meets the fault. Empty: never.

    Attributes:
        hang_on: Marker of jobs whose end is never noticed; nothing is answered afterwards.
        hang_probability: Share (0..1) of all jobs that hang so, drawn from `dice`.
        fail_on: Marker of jobs ended by a node error or an interrupt.
        die_on: Marker of jobs in whose middle the process ends without a word.
        forget_on: Marker of jobs that are unknown (404) once they are finished.
        lose_cuda_on: Marker of jobs from which on every job fails, while the health is fine, until the process ends.
        refuse_on: Marker of jobs that are refused with 503 at the POST.
        confuse_on: Marker of jobs at whose address another job is shown.
        comfyui_dies_on: Marker of jobs in whose middle ComfyUI (not this process) dies.
        dice: Source of the draws.
    """

    hang_on: str = ""
    hang_probability: float = 0.0
    fail_on: str = ""
    die_on: str = ""
    forget_on: str = ""
    lose_cuda_on: str = ""
    refuse_on: str = ""
    confuse_on: str = ""
    comfyui_dies_on: str = ""
    dice: Random = field(default_factory=Random)

    def misses_the_end(self, prompt: str) -> bool:
        """Tell whether the next job hangs for ever. Draws from the dice once per call."""
        # Drawn also for marked jobs, so that a marker does not shift what later jobs meet.
        drawn = self.dice.random() < self.hang_probability
        return drawn or is_marked(prompt, self.hang_on)

    def refuse(self, prompt: str) -> None:
        """Raise RefusedError if the job meets a server that takes none."""
        if is_marked(prompt, self.refuse_on):
            raise RefusedError

    def confused_id(self, prompt: str) -> str | None:
        """Return the id under which the job is shown wrongly; None: it is shown as it is."""
        return str(uuid4()) if is_marked(prompt, self.confuse_on) else None


def is_marked(prompt: str, marker: str) -> bool:
    """Tell whether `prompt` asks for the fault that `marker` stands for."""
    return bool(marker) and marker in prompt
