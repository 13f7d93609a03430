"""A signal that comes at a given moment, for runs in process."""

import pytest

from flowers_tpu.commands import train
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.errors import StoppedError


class StopAt:
    """Stands in for `Signals`: a signal comes before the n-th poll; 0: none does."""

    def __init__(self, poll: int = 0):
        self.stop_at, self.polls = poll, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def stop_requested(self):
        self.polls += 1
        return bool(self.stop_at) and self.polls >= self.stop_at

    def check(self):
        if self.stop_requested:
            raise StoppedError("stopped")


def train_polled(monkeypatch, spec: Spec) -> int:
    """Trains undisturbed; returns how often signals were asked for."""
    never = StopAt()
    with monkeypatch.context() as patch:
        patch.setattr(train, "Signals", lambda: never)
        train.train(spec)
    return never.polls


def train_until(monkeypatch, spec: Spec, poll: int) -> None:
    """Trains until a signal comes before the n-th poll."""
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(train, "Signals", lambda: StopAt(poll))
        train.train(spec)
