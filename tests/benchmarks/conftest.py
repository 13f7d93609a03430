import pytest

from flowers_tpu.benchmarks import rounds
from tests import photos


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Twenty photos to train on."""
    return photos.write_data_set(tmp_path_factory.mktemp("benchmarks") / "d", train=20, val=9)


@pytest.fixture
def counted(monkeypatch):
    """In the place of time: the n-th side does 24 n photos/s in the first round, then 48 n."""

    def measure(sides, *, rounds, seconds, on_turn):
        return {side.name: [24.0 * n, 48.0 * n] for n, side in enumerate(sides, start=1)}

    monkeypatch.setattr(rounds, "measure", measure)
