import flowers_tpu  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

# isort: split
import functools

import pytest
import tensorflow as tf

MOST_REPLICAS = 8

# Modules, by room, of which every test takes less than a second, without a process or a strategy.
_FAST = {
    "benchmarks": "options results rounds table torch training_measures",
    "convert": "first_bytes metadata oxford102 photo_list photo_split unread",
    "data/augment": "colour geometry trivial",
    "data": "any_photo classes folds orientation records shards splits strangers",
    "doctor": "places rules",
    "evaluation": "disputed intervals predictions scores submission temperature",
    "models": "own_backbone views",
    "monitor": "console tensorboard trackers watchers",
    "reports/exploration": "images",
    "reports": "calibration compare curves prediction_sheets report report_sections style",
    "runs": "boundary data ensemble folder goodput loop spec",
    "system": "errors facts files memory publish tpu_slices weather",
    "": "house keras options",
    "tpu": "batch_search diagnosis roofline",
    "training": "calls history losses metrics optimizers pacing plan schedule",
}
_LONG = ("tests/test_workers", "tests/test_kill", "tests/test_resume", "tests/test_notebook")


@pytest.hookimpl(tryfirst=True)  # before what `-m` leaves out
def pytest_collection_modifyitems(items):
    """Marks the fast ones, for `pytest -m fast`; puts long ones first, so that none comes last."""
    fast = {
        f"tests/{room}/test_{name}.py".replace("//", "/")
        for room, names in _FAST.items()
        for name in names.split()
    }
    for item in items:
        if item.nodeid.partition("::")[0] in fast:
            item.add_marker(pytest.mark.fast)
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))  # in all else the order stays


_cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    _cpu, [tf.config.LogicalDeviceConfiguration()] * MOST_REPLICAS
)
tf.config.list_logical_devices()  # from here on nobody can split it another way


@pytest.fixture
def make_strategy():
    """Gives the MirroredStrategy of so many CPU replicas, always the same one within a test."""

    @functools.cache
    def make(replicas: int) -> tf.distribute.Strategy:
        return tf.distribute.MirroredStrategy(
            [f"CPU:{index}" for index in range(replicas)],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )

    return make


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory):
    """Folders of finished runs by the replicas they were trained on; that of two cuts 48 px to 32.

    They are shared: copy one to write there.
    """
    from flowers_tpu.commands import train
    from flowers_tpu.runs.spec import Spec
    from tests.photos import write_data_set

    folder = tmp_path_factory.mktemp("trained")
    runs = {}
    for replicas, photo_size in ((1, 32), (2, 48)):
        data = write_data_set(folder / f"data{replicas}", size=photo_size, val=37)
        runs[replicas] = folder / f"run{replicas}"
        spec = Spec.of(
            data_dir=str(data), run_dir=str(runs[replicas]), image_size=32, replicas=replicas,
            backbone="small_cnn", weights="none", dropout=0.2, global_batch_size=8,
            warmup_epochs=0, epochs=2, learning_rate=3e-3, lr_schedule="constant",
            flip_up_down=False, tensorboard=False, report=False,
        )  # fmt: skip
        train.train(spec)
    return runs


@pytest.fixture(scope="session")
def exported(trained_runs, tmp_path_factory):
    """Gives the folder of the export of one of `trained_runs` to a format."""
    from tests.calling import call

    @functools.cache
    def export(format_name, replicas):
        folder = tmp_path_factory.mktemp("export") / format_name
        flags = (f"--format={format_name}", f"--output_dir={folder}")
        assert call("export", trained_runs[replicas], *flags) == 0
        return folder

    return export
