import itertools

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import augment, order, pipeline, records

SIZE = 16
SEED = 6
BUFFER = 5
TRAIN_PHOTOS = 11  # 2 steps of 4 and 3 left over
UNCHANGED = augment.Augmentation(False, False, (1.0, 1.0), 1.0)


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
    return records.read_split(str(folder), name, SIZE, len(jpegs))


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """A training split and its pixels in file order."""
    jpegs, pixels = photos(TRAIN_PHOTOS)
    return write(tmp_path_factory.mktemp("data"), "train", jpegs, num_shards=3), pixels


def train_batches(split, *, local_batch_size=4, augmentation=None, first_step=0, num_steps=6):
    dataset = pipeline.train_dataset(
        split,
        image_size=SIZE,
        global_batch_size=4,
        local_batch_size=local_batch_size,
        augmentation=augmentation or augment.Augmentation(),
        seed=SEED,
        shuffle_buffer=BUFFER,
        first_step=first_step,
        num_steps=num_steps,
    )
    return list(dataset.as_numpy_iterator())


def eval_batches(split, *, local_batch_size=4):
    dataset = pipeline.eval_dataset(
        split, image_size=SIZE, global_batch_size=4, local_batch_size=local_batch_size
    )
    return list(dataset.as_numpy_iterator())


def joined(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for name in ("image", "label", "weight"):
            np.testing.assert_array_equal(batch[name], other[name])


# Training


def test_an_epoch_has_the_steps_it_can_fill(train):
    batches = train_batches(train[0])
    assert len(batches) == 3 * 2
    for batch in batches:
        assert batch["image"].shape == (4, SIZE, SIZE, 3)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].shape == (4,)
        assert batch["label"].dtype == np.int32
        assert batch["weight"].tolist() == [1, 1, 1, 1]
        assert batch["weight"].dtype == np.float32


def test_what_is_left_over_differs_between_epochs(train):
    labels = joined(train_batches(train[0]))["label"].reshape(3, 8)
    left_over = [frozenset(range(TRAIN_PHOTOS)) - set(epoch) for epoch in labels]
    assert [len(rest) for rest in left_over] == [3, 3, 3]  # so nothing came twice in an epoch
    assert len(set(left_over)) == 3


def test_without_augmentation_photos_come_as_they_are(train):
    split, pixels = train
    batch = joined(train_batches(split, augmentation=UNCHANGED))
    np.testing.assert_array_equal(batch["image"], pixels[batch["label"]])


def test_photos_are_augmented_by_seed_and_number(train):
    split, pixels = train
    images = joined(train_batches(split))["image"]
    counts = [shard.count for shard in split.shards]
    for epoch in (0, 1, 2):
        indices = order.epoch_indices(counts, seed=SEED, epoch=epoch, shuffle_buffer=BUFFER)
        for position in range(8):
            number = tf.constant(epoch * TRAIN_PHOTOS + position, tf.int64)
            draws = augment.draw(SEED, number)
            top, left, side, _ = augment.crop_window(draws, SIZE, augment.Augmentation()).numpy()
            crop = pixels[indices[position], top : top + side, left : left + side]
            expected = augment.augment(crop, draws, SIZE, augment.Augmentation())
            np.testing.assert_array_equal(images[epoch * 8 + position], expected)


@pytest.mark.parametrize("first_step", [1, 2, 3, 4, 5, 6])  # epochs begin with steps 2 and 4
def test_resuming_continues_with_the_batches_of_an_uninterrupted_run(train, first_step):
    whole = train_batches(train[0])
    assert_same(train_batches(train[0], first_step=first_step), whole[first_step:])


@pytest.mark.parametrize("num_steps", [1, 3])
def test_a_run_may_end_within_an_epoch(train, num_steps):
    whole = train_batches(train[0])
    assert_same(train_batches(train[0], num_steps=num_steps), whole[:num_steps])
    assert_same(train_batches(train[0], first_step=1, num_steps=num_steps), whole[1:num_steps])


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
def test_the_batches_of_replicas_make_up_the_global_batch(train, local_batch_size):
    batches = train_batches(train[0], local_batch_size=local_batch_size, first_step=1)
    assert {len(batch["label"]) for batch in batches} == {local_batch_size}
    replicas = 4 // local_batch_size
    together = [joined(batches[i : i + replicas]) for i in range(0, len(batches), replicas)]
    assert_same(together, train_batches(train[0], first_step=1))


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
    # Cut to crops of nearly, but not quite, the whole photo: another way to decode.
    augmentation = augment.Augmentation(False, False, (1.0, 1.0), crop_min=0.999)
    batches = train_batches(split, augmentation=augmentation) if training else eval_batches(split)
    for image in joined(batches)["image"]:
        np.testing.assert_allclose(image, np.float32(photo.convert("RGB")), atol=16)


# Distribution


def test_replica_r_gets_the_rth_local_batch(train, make_strategy):
    strategy = make_strategy(2)
    dataset = pipeline.train_dataset(
        train[0],
        image_size=SIZE,
        global_batch_size=4,
        local_batch_size=2,
        augmentation=augment.Augmentation(),
        seed=SEED,
        shuffle_buffer=BUFFER,
        num_steps=6,
    )
    steps = [
        [
            {name: strategy.experimental_local_results(batch[name])[r].numpy() for name in batch}
            for r in range(2)
        ]
        for batch in pipeline.distribute(strategy, dataset)
    ]
    assert len(steps) == 6
    assert_same(list(itertools.chain(*steps)), train_batches(train[0], local_batch_size=2))
