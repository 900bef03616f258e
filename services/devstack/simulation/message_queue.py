"""A model of the SQS queue: visible and in flight, redelivery, dead letters, and activity as its metrics need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.devstack.simulation.clock import Clock
from services.devstack.simulation.numbers import LEASE_S, MAX_RECEIVES, QUEUE_ACTIVE_S


@dataclass(slots=True, eq=False)
class Message:
    task_id: str
    visible_at_s: float
    receives: int = 0


class MessageQueue:
    """One consumer listens; it is told when something may have become visible, as a long poll would tell it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._messages: list[Message] = []
        self._listener: Callable[[], None] = lambda: None
        self.dead_letters: list[Message] = []
        self.sent = 0
        self.touched_at_s = 0.0
        self.active_since_s = -float("inf")

    @property
    def visible(self) -> int:
        now_s = self._clock.now_s
        return sum(1 for message in self._messages if message.visible_at_s <= now_s)

    @property
    def depth(self) -> int:
        """Messages in all, whether they are visible or not."""
        return len(self._messages)

    def listen(self, listener: Callable[[], None]) -> None:
        self._listener = listener

    def touch(self) -> None:
        """Some call used the queue, which counts as activity."""
        now_s = self._clock.now_s
        if now_s - self.touched_at_s > QUEUE_ACTIVE_S:
            self.active_since_s = now_s
        self.touched_at_s = now_s

    def send(self, task_id: str) -> None:
        self.touch()
        self.sent += 1
        self._messages.append(Message(task_id, self._clock.now_s))
        self._clock.after(0, self._announce)

    def receive(self) -> Message | None:
        """The oldest visible message, invisible from now on. One received too often moves to the dead letters."""
        now_s = self._clock.now_s
        for message in list(self._messages):
            if message.visible_at_s > now_s:
                continue
            message.receives += 1
            if message.receives > MAX_RECEIVES:
                self._messages.remove(message)
                self.dead_letters.append(message)
                continue
            self.hide(message, LEASE_S)
            return message
        return None

    def hide(self, message: Message, for_s: float) -> None:
        """ChangeMessageVisibility; 0 hands it back."""
        message.visible_at_s = self._clock.now_s + for_s
        self._clock.at(message.visible_at_s, self._announce)

    def delete(self, message: Message) -> None:
        if message in self._messages:
            self._messages.remove(message)

    def _announce(self) -> None:
        self._listener()
