import photos
import pytest

from flowers_tpu.benchmarks import bench as bench_module


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Twenty photos to train on."""
    return photos.write_data_set(tmp_path_factory.mktemp("benchmarks") / "d", train=20, val=9)


@pytest.fixture
def flags(folder):
    flags = {"data_dir": str(folder), "image_size": 32, "backbone": "tiny", "weights": "none"}
    return {**flags, "batch_size_per_replica": 4, "shuffle_buffer": 8, "steps_per_loop": 2}


@pytest.fixture
def counted(monkeypatch):
    """In the place of time: the n-th side does 24 n photos/s in the first round, then 48 n."""

    def measure(sides, *, rounds, seconds, on_turn):
        return {side.name: [24.0 * n, 48.0 * n] for n, side in enumerate(sides, start=1)}

    monkeypatch.setattr(bench_module.rounds, "measure", measure)
