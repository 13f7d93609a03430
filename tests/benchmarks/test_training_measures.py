import types

import tensorflow as tf

from flowers_tpu.benchmarks import training_measures


def test_the_peak_of_device_memory_begins_where_it_is_reset(monkeypatch):
    devices = [
        types.SimpleNamespace(name="/device:CPU:0", device_type="CPU"),
        types.SimpleNamespace(name="/device:GPU:0", device_type="GPU"),
        types.SimpleNamespace(name="/device:TPU:0", device_type="TPU"),
    ]
    peaks = {"/device:GPU:0": 9e9}

    def reset(name):
        peaks[name] = 5e6

    def memory_info(name):
        if "TPU" in name:
            raise ValueError("not given by this runtime")
        return {"peak": peaks[name]}

    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: devices)
    monkeypatch.setattr(tf.config.experimental, "reset_memory_stats", reset)
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", memory_info)
    training_measures._reset_device_memory()
    (row,) = training_measures._device_memory("step")
    assert row.key == ("step", "peak memory of /device:GPU:0", "MB")
    assert row.values == (5.0,)
