import itertools

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import order, pipeline, records
from flowers_tpu.data.augment.draws import NUM_DRAWS, draw
from flowers_tpu.data.splits import read_split
from tests.photos import UNCHANGED, augment_photo, source_of

SIZE = 16
SEED = 6
BUFFER = 5
TRAIN_PHOTOS = 11  # 2 steps of 4 and 3 left over


def photos(count):
    """JPEGs of soft colours, `[count]`, and their pixels, `[count, SIZE, SIZE, 3]` uint8."""
    coarse = np.random.default_rng(count).uniform(0, 255, (count, 3, 3, 3))
    smooth = tf.cast(tf.image.resize(coarse, [SIZE, SIZE]), tf.uint8)
    # With colours at half resolution, the edges of a crop that is decoded alone would differ.
    jpegs = [
        tf.io.encode_jpeg(image, quality=100, chroma_downsampling=False).numpy() for image in smooth
    ]
    return jpegs, np.stack([tf.io.decode_jpeg(jpeg, channels=3) for jpeg in jpegs])


def write(folder, name, jpegs, *, num_shards=1):
    """Writes a split whose labels are the indices in file order."""
    serialized = [
        records.serialize_example(f"id{index}", jpeg, None if name == "test" else index)
        for index, jpeg in enumerate(jpegs)
    ]
    records.write_shards(str(folder / name), serialized, SIZE, num_shards)
    return read_split(str(folder), name, len(jpegs))


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """A training split and its pixels in file order."""
    jpegs, pixels = photos(TRAIN_PHOTOS)
    return write(tmp_path_factory.mktemp("data"), "train", jpegs, num_shards=3), pixels


def train_dataset(split, *, augmentation=None, on_device=False, **options):
    options = {"global_batch_size": 4, "local_batch_size": 4, "num_steps": 6} | options
    return pipeline.train_dataset(
        source_of(split),
        augment_photo=None if on_device else augment_photo(SIZE, augmentation),
        seed=SEED,
        shuffle_buffer=BUFFER,
        **options,
    )


def train_batches(split, **options):
    return list(train_dataset(split, **options).as_numpy_iterator())


@pytest.fixture(scope="module")
def whole(train):
    """The six steps of a run by one worker."""
    return {on_device: train_batches(train[0], on_device=on_device) for on_device in (False, True)}


def eval_batches(split, **options):
    options = {"global_batch_size": 4, "local_batch_size": 4} | options
    return list(pipeline.eval_dataset(source_of(split), **options).as_numpy_iterator())


def joined(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


# Training


def test_an_epoch_has_the_steps_it_can_fill(whole):
    batches = whole[False]
    assert len(batches) == 3 * 2
    for batch in batches:
        assert batch["image"].shape == (4, SIZE, SIZE, 3)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].shape == (4,)
        assert batch["label"].dtype == np.int32
        assert batch["weight"].tolist() == [1, 1, 1, 1]
        assert batch["weight"].dtype == np.float32


def test_what_is_left_over_differs_between_epochs(whole):
    labels = joined(whole[False])["label"].reshape(3, 8)
    left_over = [frozenset(range(TRAIN_PHOTOS)) - set(epoch) for epoch in labels]
    assert [len(rest) for rest in left_over] == [3, 3, 3]  # so nothing came twice in an epoch
    assert len(set(left_over)) == 3


def test_without_augmentation_photos_come_as_they_are(train):
    split, pixels = train
    batch = joined(train_batches(split, augmentation=UNCHANGED))
    np.testing.assert_array_equal(batch["image"], pixels[batch["label"]])


def test_photos_are_augmented_by_seed_and_number(train, whole):
    split, pixels = train
    whole = joined(whole[False])
    assert sorted(whole) == ["image", "label", "weight"]
    counts = [shard.count for shard in split.shards]
    for epoch in (0, 1, 2):
        indices = order.epoch_indices(counts, seed=SEED, epoch=epoch, shuffle_buffer=BUFFER)
        for position in range(8):
            draws = draw(SEED, epoch * TRAIN_PHOTOS + position)
            expected = augment_photo(SIZE)(pixels[indices[position]], draws)
            np.testing.assert_array_equal(whole["image"][epoch * 8 + position], expected)


def test_where_the_device_augments_photos_come_as_they_are_with_their_draws(train, whole):
    assert {batch["draws"].shape for batch in whole[True]} == {(4, NUM_DRAWS)}
    host, device = joined(whole[False]), joined(whole[True])
    np.testing.assert_array_equal(device["image"], train[1][device["label"]])
    np.testing.assert_array_equal(device["label"], host["label"])
    numbers = [epoch * TRAIN_PHOTOS + position for epoch in range(3) for position in range(8)]
    for number, draws in zip(numbers, device["draws"], strict=True):
        np.testing.assert_array_equal(draws, draw(SEED, number))


@pytest.mark.core
@pytest.mark.parametrize(
    ("first_step", "on_device"),  # epochs begin with steps 2 and 4
    [(1, False), (2, False), (3, False), (4, False), (5, True), (6, False)],
)
def test_resuming_continues_with_the_batches_of_an_uninterrupted_run(
    train, whole, first_step, on_device
):
    resumed = train_batches(train[0], on_device=on_device, first_step=first_step)
    assert_same(resumed, whole[on_device][first_step:])


@pytest.mark.parametrize(("first_step", "num_steps"), [(0, 1), (0, 3), (1, 3)])
def test_a_run_may_end_within_an_epoch(train, whole, first_step, num_steps):
    batches = train_batches(train[0], first_step=first_step, num_steps=num_steps)
    assert_same(batches, whole[False][first_step:num_steps])


def test_skipped_photos_are_not_decoded(tmp_path):
    jpegs, _ = photos(8)
    first = order.epoch_indices([8], seed=SEED, epoch=0, shuffle_buffer=BUFFER)[0]
    split = write(tmp_path, "train", jpegs)
    jpegs[first] = b"\xff\xd8 no photo"
    serialized = [records.serialize_example(f"id{i}", jpeg, i) for i, jpeg in enumerate(jpegs)]
    records.write_shards(str(tmp_path / "train"), serialized, SIZE, 1)
    with pytest.raises(tf.errors.InvalidArgumentError):
        train_batches(split, num_steps=2)
    assert len(train_batches(split, first_step=1, num_steps=2)) == 1


@pytest.mark.parametrize("local_batch_size", [2, 1])
def test_the_batches_of_replicas_make_up_the_global_batch(train, whole, local_batch_size):
    batches = train_batches(train[0], local_batch_size=local_batch_size, first_step=1)
    assert {len(batch["label"]) for batch in batches} == {local_batch_size}
    replicas = 4 // local_batch_size
    together = [joined(batches[i : i + replicas]) for i in range(0, len(batches), replicas)]
    assert_same(together, whole[False][1:])


# Evaluation


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (7, 2), (8, 2), (9, 3)])
@pytest.mark.parametrize("local_batch_size", [4, 1])
def test_evaluation_sees_every_photo_once_in_file_order(tmp_path, count, steps, local_batch_size):
    jpegs, pixels = photos(count)
    split = write(tmp_path, "val", jpegs, num_shards=min(count, 3))
    batches = eval_batches(split, local_batch_size=local_batch_size)

    assert pipeline.eval_steps(count, 4) == steps
    assert len(batches) == steps * 4 // local_batch_size
    assert {len(batch["label"]) for batch in batches} == {local_batch_size}
    padding = steps * 4 - count
    whole = joined(batches)
    assert whole["weight"].tolist() == [1] * count + [0] * padding
    assert whole["label"].tolist() == [*range(count), *[0] * padding]
    np.testing.assert_array_equal(whole["image"][:count], pixels)


def test_unlabeled_photos_count_with_label_0(tmp_path):
    batch = joined(eval_batches(write(tmp_path, "test", photos(3)[0])))
    assert batch["label"].tolist() == [0, 0, 0, 0]
    assert batch["weight"].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("training", [False, True])
def test_greyscale_and_cmyk_photos_become_rgb(tmp_path, mode, training):
    image_module = pytest.importorskip("PIL.Image")
    photo = image_module.fromarray(photos(1)[1][0]).convert(mode)
    photo.save(tmp_path / "photo.jpg", quality=100, subsampling=0)
    split = write(tmp_path, "train", [(tmp_path / "photo.jpg").read_bytes()] * 4)
    batches = train_batches(split, augmentation=UNCHANGED) if training else eval_batches(split)
    for image in joined(batches)["image"]:
        np.testing.assert_allclose(image, np.float32(photo.convert("RGB")), atol=16)


# Several workers


PARTS = [(2, 1), (4, 1)]  # workers, and the local batch of one of their replicas


@pytest.mark.core
@pytest.mark.parametrize(("workers", "local_batch_size"), PARTS)
@pytest.mark.parametrize(("on_device", "first_step"), [(False, 0), (True, 3)])
def test_the_parts_of_workers_make_up_the_global_batches(
    train, whole, workers, local_batch_size, on_device, first_step
):
    options = {"on_device": on_device, "first_step": first_step}
    options |= {"workers": workers, "local_batch_size": local_batch_size}
    parts = [train_batches(train[0], worker=worker, **options) for worker in range(workers)]
    assert_same(in_global_batches(parts), whole[on_device][first_step:])


@pytest.mark.core
@pytest.mark.parametrize(("workers", "local_batch_size"), PARTS)
def test_the_parts_of_workers_make_up_an_evaluation(train, workers, local_batch_size):
    """11 photos in three batches: the last worker has nothing but padding at the end."""
    options = {"workers": workers, "local_batch_size": local_batch_size}
    parts = [eval_batches(train[0], worker=worker, **options) for worker in range(workers)]
    assert_same(in_global_batches(parts), eval_batches(train[0]))
    assert parts[-1][-1]["weight"][-1] == 0


def in_global_batches(parts):
    """Joins what each worker has for each of its replicas, step by step."""
    per_step = 4 // len(parts) // len(parts[0][0]["label"])
    assert len({len(part) for part in parts}) == 1
    return [
        joined([batch for part in parts for batch in part[step : step + per_step]])
        for step in range(0, len(parts[0]), per_step)
    ]


@pytest.mark.core
@pytest.mark.parametrize("training", [False, True])
def test_a_worker_decodes_its_own_photos_alone(tmp_path, training):
    jpegs, _ = photos(8)
    split = write(tmp_path, "train", jpegs)
    ordered = range(8)
    if training:
        ordered = order.epoch_indices([8], seed=SEED, epoch=0, shuffle_buffer=BUFFER)
    mine = {ordered[position] for position in (0, 1, 4, 5)}  # of the first of two workers
    for index in set(range(8)) - mine:
        jpegs[index] = b"\xff\xd8 no photo"
    serialized = [records.serialize_example(f"id{i}", jpeg, i) for i, jpeg in enumerate(jpegs)]
    records.write_shards(str(tmp_path / "train"), serialized, SIZE, 1)

    batches = train_batches if training else eval_batches
    options = {"workers": 2, "local_batch_size": 2} | ({"num_steps": 2} if training else {})
    labels = joined(batches(split, worker=0, **options))["label"]
    assert set(labels) == mine and len(labels) == 4
    with pytest.raises(tf.errors.InvalidArgumentError):
        batches(split, worker=1, **options)


class StrategyOfWorkers:
    """Asks for its data as one worker of three with two replicas each."""

    num_replicas_in_sync = 6

    def distribute_datasets_from_function(self, function, options):
        assert options is None
        return function(tf.distribute.InputContext(3, 1, 6))


def test_the_context_tells_which_worker_asks(train):
    asked = []

    def dataset(worker, workers):
        asked.append((worker, workers))
        return tf.data.Dataset.range(2)

    found = pipeline.distribute(StrategyOfWorkers(), dataset, fetches_ahead=True)
    assert asked == [(1, 3)]
    # Else several workers would ask each other at each step whether there is one more.
    assert int(found.cardinality()) == tf.data.INFINITE_CARDINALITY


# Distribution


@pytest.mark.core
@pytest.mark.parametrize("replicas", [1, 2])
def test_nothing_is_fetched_ahead_if_the_devices_do_not_need_it(
    make_strategy, monkeypatch, replicas
):
    # TensorFlow would warn now and then, at the end of a split, that a fetch was cancelled.
    strategy, given = make_strategy(replicas), []
    distribute = strategy.distribute_datasets_from_function
    monkeypatch.setattr(
        strategy,
        "distribute_datasets_from_function",
        lambda function, options: given.append(options) or distribute(function, options),
    )
    batches = pipeline.distribute(
        strategy, lambda worker, workers: tf.data.Dataset.range(2), fetches_ahead=False
    )
    values = strategy.experimental_local_results(next(iter(batches)))
    assert [value.numpy() for value in values] == [0, 1][:replicas]
    assert len({value.device for value in values}) == 1
    assert given[0].experimental_per_replica_buffer_size == 0


@pytest.mark.parametrize("on_device", [False, True])
def test_replica_r_gets_the_rth_local_batch(train, make_strategy, on_device):
    strategy = make_strategy(2)
    options = {"local_batch_size": 2, "on_device": on_device}

    def dataset(worker, workers):
        return train_dataset(train[0], worker=worker, workers=workers, **options)

    steps = [
        [
            {name: strategy.experimental_local_results(batch[name])[r].numpy() for name in batch}
            for r in range(2)
        ]
        for batch in pipeline.distribute(strategy, dataset, fetches_ahead=False)
    ]
    assert len(steps) == 6
    assert_same(list(itertools.chain(*steps)), train_batches(train[0], **options))
