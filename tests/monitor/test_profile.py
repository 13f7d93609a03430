"""A profile is of its steps, and ends well however the run does."""

import types

import pytest

from flowers_tpu.monitor import profile as profile_lib
from flowers_tpu.monitor.profile import Profile
from flowers_tpu.monitor.watchers import Watchers
from tests.monitor.watching import call


@pytest.fixture
def profiler(monkeypatch):
    """Stands in for TensorFlow's; tells when it was started and stopped."""
    calls = []
    stand_in = types.SimpleNamespace(
        start=lambda folder: calls.append(f"start {folder}"), stop=lambda: calls.append("stop")
    )
    monkeypatch.setattr(profile_lib.tf.profiler, "experimental", stand_in)
    return calls


@pytest.mark.parametrize(
    ("first", "calls_end_at", "events", "said"),
    [
        (0, [2, 5, 9, 12], ["begin", 2, 5, "start f", 9, "stop", 12], "profile written: f/plugins"),
        (5, [9, 12], ["start f", "begin", 9, "stop", 12], "profile written"),
        (0, [2, 5, 7], ["begin", 2, 5, "start f", 7, "stop"], "cut short, as the run ended"),
        (7, [9, 12], ["begin", 9, 12], "nothing is profiled, 7 steps are done already"),
        (20, [], ["begin"], "nothing is profiled, 20 steps are done already"),
        (0, [2, 4], ["begin", 2, 4], "nothing was profiled, the run did not come so far"),
    ],
)
def test_a_profile_is_of_its_steps(profiler, capsys, first, calls_end_at, events, said):
    with Profile("f", (5, 9), first) as profile:
        profiler.append("begin")
        for step in calls_end_at:
            profiler.append(step)
            profile.on_call(call(step))
    assert profiler == events
    out = capsys.readouterr().out
    assert out.startswith("--profile_steps=5,9: ") and said in out and out.count("\n") == 1


def test_a_profile_ends_with_an_error(profiler):
    with pytest.raises(ValueError, match="broken"), Profile("f", (0, 9), 0):
        raise ValueError("broken")
    assert profiler == ["start f", "stop"]


def test_a_profiler_that_cannot_start_is_a_warning(profiler, monkeypatch, caplog):
    """Another process profiles, say."""

    def start(folder):
        raise RuntimeError("Another profiler session active.")

    monkeypatch.setattr(profile_lib.tf.profiler.experimental, "start", start)
    with Watchers([Profile("f", (5, 9), 0)]) as watching:
        for step in (4, 5, 9):
            watching.on_call(call(step))
    (record,) = (record for record in caplog.records if record.name == "absl")
    assert "Profile: failed (RuntimeError: Another profiler session active.)" in record.getMessage()
