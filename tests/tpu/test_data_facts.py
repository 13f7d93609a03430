import dataclasses

import photos

from flowers_tpu import parts
from flowers_tpu.config import Config
from flowers_tpu.distribution import Devices
from flowers_tpu.tpu.data_facts import DataFacts, data_facts, input_images_per_second


def config_of(**flags):
    return Config(backbone="small_cnn", weights="none", run_dir="x", **flags)


def test_the_competitions_are_assumed(tmp_path):
    assumed = DataFacts(104, photo_size=64, training_photos=12_753, are_there=False)
    for place in (str(tmp_path / "absent"), "gs://no-such-bucket/data", "example"):
        assert data_facts(config_of(data_dir=place, image_size=64)) == assumed
    (tmp_path / "names.txt").write_text("a\nb\n")
    config = config_of(image_size=64, data_dir="gs://x", classes=str(tmp_path / "names.txt"))
    assert data_facts(config) == assumed._replace(num_classes=2)


def test_data_that_are_there_are_looked_at(tmp_path):
    photos.write_data_set(tmp_path, train=24, size=48, num_classes=3)
    config = config_of(data_dir=str(tmp_path), image_size=32)
    assert data_facts(config) == DataFacts(3, photo_size=48, training_photos=24, are_there=True)
    # Photos that are too small are no data for this.
    assert not data_facts(dataclasses.replace(config, image_size=64)).are_there


def test_the_input_is_measured(tmp_path, make_strategy):
    photos.write_data_set(tmp_path, train=24, size=32, num_classes=3)
    config = config_of(data_dir=str(tmp_path), image_size=32, batch_size_per_replica=4)
    strategy = make_strategy(1)
    rate = input_images_per_second(parts.resolve(config, Devices(strategy, "TPU", 1)))
    assert 100 < rate < 1e6
