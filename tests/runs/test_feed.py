import dataclasses
import types

import numpy as np
import psutil
import pytest
import tensorflow as tf

from flowers_tpu.runs import feed
from flowers_tpu.runs import recipe
from flowers_tpu.options import Config
from flowers_tpu.data.augment import apply
from flowers_tpu.data import records
from flowers_tpu.data.shards import shard_reader
from flowers_tpu.data.splits import read_split
from flowers_tpu.data import source
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError
from tests.photos import write_data_set

PHOTO_SIZE, IMAGE_SIZE = 64, 32
AUGMENTATION = {
    **{"flip_left_right": False, "flip_up_down": False, "crop_min": 0.5, "brightness": 0.11},
    **{"contrast": 0.12, "hue": 0.13, "rotation": 14.0, "zoom": 0.15, "translation": 0.16},
    "random_erasing": 0.17,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of 64 pixels: 24 to train with, and 9."""
    return write_data_set(tmp_path_factory.mktemp("data"), size=PHOTO_SIZE)


def make_config(folder, **changes):
    values = {"data_dir": str(folder), "image_size": IMAGE_SIZE, "batch_size_per_replica": 4}
    config = Config(**(values | {"augment_on": "host", "epochs": 1} | changes))
    return recipe.resolve(config, Devices(tf.distribute.get_strategy(), "CPU", 2))


@pytest.fixture(scope="module")
def splits(folder):
    return {
        name: read_split(str(folder), name, IMAGE_SIZE, 3)
        for name in records.LABELED_SPLITS
    }


def fed(config, strategy, splits, first_step=0):
    """What each step of training sees, and of the validation: all replicas together."""
    train, val = feed.train_and_val_sources(config, splits["train"], splits["val"])
    plan = recipe.make_plan(config, recipe.Data("", ("a", "b", "c"), splits))

    def joined(batch):
        local = {n: strategy.experimental_local_results(v) for n, v in batch.items()}
        return {name: np.concatenate(values) for name, values in local.items()}

    return [
        [joined(batch) for batch in feed.iterate(batches)]
        for batches in (
            feed.train_batches(config, strategy, train, plan, first_step),
            feed.eval_batches(config, strategy, val),
        )
    ]


def test_every_flag_of_augmentation_is_taken(folder):
    config = make_config(folder, saturation_lower=0.3, saturation_upper=0.4, **AUGMENTATION)
    expected = apply.Augmentation(saturation=(0.3, 0.4), **AUGMENTATION)
    assert feed.augmentation(config) == expected
    defaults = apply.Augmentation()
    assert feed.augmentation(make_config(folder)) == defaults
    for field in dataclasses.fields(defaults):
        assert getattr(expected, field.name) != getattr(defaults, field.name), field.name


def test_one_of_host_and_device_augments(folder):
    on_host, on_device = (make_config(folder, augment_on=where) for where in ("host", "device"))
    assert feed.augment_on_device(on_host) is None
    assert feed.augment_on_host(on_device) is None
    image = np.random.default_rng(0).integers(0, 256, (PHOTO_SIZE, PHOTO_SIZE, 3), dtype=np.uint8)
    draws = apply.draw(0, 3)
    by_host = feed.augment_on_host(on_host)(image, draws).numpy().astype(int)
    by_device = feed.augment_on_device(on_device)(image[np.newaxis], draws[tf.newaxis])[0]
    assert by_host.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert np.abs(by_host - by_device).max() <= 1


@pytest.mark.parametrize(
    ("flags", "factor"),
    [
        ({}, 1),  # crops of 70 % have 44.8 pixels: halved they would be enlarged
        ({"crop_min": 1.0}, 2),
        ({"image_size": 22}, 2),
        ({"image_size": 8, "crop_min": 1.0}, 8),
    ],
)
def test_photos_for_training_are_reduced_as_far_as_what_is_cut_out_allows(folder, flags, factor):
    decoder = feed.train_decoder(make_config(folder, **flags), PHOTO_SIZE)
    assert (decoder.factor, decoder.side) == (factor, PHOTO_SIZE // factor)


@pytest.mark.parametrize(
    ("flags", "side"),
    [
        ({"rotation": 10.0}, 46),  # 0.7 of it are the 32 px wanted
        ({"crop_min": 1.0, "zoom": 0.1}, 36),  # halved, what is left of it would be enlarged
    ],
)
def test_photos_that_are_warped_are_shrunk_before(folder, flags, side):
    decoder = feed.train_decoder(make_config(folder, **flags), PHOTO_SIZE)
    assert (decoder.factor, decoder.side) == (1, side)


# Larger photos than the model sees


@pytest.mark.parametrize(
    ("augment_on", "flags"),
    [
        ("host", {}),
        ("device", {"cache": "records"}),
        ("host", {"crop_min": 1.0, "cache": "pixels"}),
    ],
)
def test_a_run_on_larger_photos(folder, splits, make_strategy, augment_on, flags):
    config = make_config(folder, augment_on=augment_on, **flags)
    train, val = fed(config, make_strategy(2), splits)
    assert (len(train), len(val)) == (4 * 3, 2)
    on_device = feed.augment_on_device(config)
    for batch in train:
        if on_device:
            batch["image"] = on_device(batch["image"], batch["draws"]).numpy()
        assert batch["image"].shape == (8, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert {batch["image"].shape for batch in val} == {(8, IMAGE_SIZE, IMAGE_SIZE, 3)}
    # Classes differ in brightness, which neither crops nor a smaller size change.
    brightness = np.concatenate([batch["image"].max(axis=-1).mean(axis=(1, 2)) for batch in train])
    labels = np.concatenate([batch["label"] for batch in train])
    assert brightness[labels == 2].mean() > brightness[labels == 0].mean() + 60
    weights = np.concatenate([batch["weight"] for batch in val])
    labels = np.concatenate([batch["label"] for batch in val])[weights == 1]
    assert labels.tolist() == splits["val"].labels.tolist()


def test_photos_of_an_evaluation_are_shrunk_whole(folder, splits, make_strategy):
    config = make_config(folder)
    _, val = fed(config, make_strategy(2), splits)
    images = np.concatenate([batch["image"] for batch in val])[:9]
    reader = shard_reader(splits["val"].shards)
    serialized = [record for n in range(2) for record in reader(tf.constant(n, tf.int64))]
    for image, record in zip(images, serialized, strict=True):
        whole = tf.io.decode_jpeg(records.parse(record)["image"], channels=3)
        shrunk = tf.image.resize(whole, [IMAGE_SIZE] * 2, antialias=True)
        assert tf.image.psnr(tf.cast(image, tf.float32), shrunk, 255.0) > 35


def test_host_and_device_feed_a_model_the_same(folder, splits, make_strategy):
    """Step by step, whatever the route, the cache, and where a run is taken up."""
    on_host, _ = fed(make_config(folder), make_strategy(2), splits)
    config = make_config(folder, augment_on="device", cache="pixels")
    on_device, _ = fed(config, make_strategy(2), splits, first_step=5)
    assert (len(on_host), len(on_device)) == (12, 7)
    augmented = feed.augment_on_device(config)
    for a, b in zip(on_host[5:], on_device, strict=True):
        np.testing.assert_array_equal(a["label"], b["label"])
        images = augmented(b["image"], b["draws"]).numpy().astype(int)
        assert np.abs(images - a["image"]).max() <= 1


# Caches


@pytest.mark.parametrize(
    ("cache", "makes"),
    [("none", source.from_files), ("records", source.from_records), ("pixels", source.from_pixels)],
)
def test_the_cache_that_is_asked_for_is_made(monkeypatch, folder, splits, cache, makes):
    """Of training and validation, by the decoder of each."""
    made = []
    for name in ("from_files", "from_records", "from_pixels"):
        monkeypatch.setattr(source, name, lambda *args, name=name: made.append((name, *args)))
    feed.train_and_val_sources(make_config(folder, cache=cache), splits["train"], splits["val"])
    assert [(name, split.name, decoder.side) for name, split, decoder in made] == [
        (makes.__name__, "train", PHOTO_SIZE),
        (makes.__name__, "val", IMAGE_SIZE),
    ]


@pytest.mark.parametrize("cache", ["records", "pixels"])
def test_both_splits_must_fit_into_memory(monkeypatch, folder, splits, cache):
    needed = {
        "records": sum(split.jpeg_sizes.sum() for split in splits.values()),
        "pixels": 24 * 64 * 64 * 3 + 9 * 32 * 32 * 3,
    }[cache]
    config = make_config(folder, cache=cache)
    memory = types.SimpleNamespace(available=int(needed / 0.9) + 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    feed.train_and_val_sources(config, splits["train"], splits["val"])
    memory.available = int(needed / 0.9) - 2
    with pytest.raises(RequestError, match=f"--cache={cache} needs"):
        feed.train_and_val_sources(config, splits["train"], splits["val"])


def test_a_cache_is_refused_where_several_hosts_read(splits):
    several = types.SimpleNamespace(extended=types.SimpleNamespace(num_hosts=4))
    train, val = splits["train"], splits["val"]
    feed.check_cache(Config(), several, train, val)
    with pytest.raises(RequestError, match=r"--cache=records: .* 4 hosts read them"):
        feed.check_cache(Config(cache="records"), several, train, val)


# Which photos a step sees


def test_ids_of_a_step_are_those_it_sees(folder, splits, make_strategy):
    config = make_config(folder, augment_on="device", shuffle_buffer=7, seed=5)
    train, _ = fed(config, make_strategy(2), splits)
    split = splits["train"]
    label_of = dict(zip(split.ids, split.labels, strict=True))
    for step, batch in enumerate(train):
        ids = feed.ids_of_step(config, split, step)
        assert [label_of[example_id] for example_id in ids] == batch["label"].tolist()
