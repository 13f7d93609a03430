import itertools

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import order, pipeline, records
from flowers_tpu.data.splits import read_split
from tests.photos import augment_photo, source_of

pytestmark = pytest.mark.core

COUNTS = [3, 4, 2, 5, 1, 3]  # the shards begin with examples 0, 3, 7, 9, 14 and 15


def indices(counts=COUNTS, *, seed=0, epoch=0, shuffle_buffer=1):
    result = order.epoch_indices(counts, seed=seed, epoch=epoch, shuffle_buffer=shuffle_buffer)
    assert result.dtype == np.int64
    return result.tolist()


def test_four_shards_are_read_in_turn():
    # The shards are permuted to 1, 3, 5, 2, 4, 0. A shard that ends costs its reader one turn,
    # after which it takes the next: 4 follows 2, and 0 follows 5.
    assert indices() == [
        *(3, 9, 15, 7),
        *(4, 10, 16, 8),
        *(5, 11, 17),
        *(6, 12, 14),
        *(13, 0),
        *(1, 2),
    ]


def test_the_order_stays_the_same_in_every_version():
    assert indices(seed=1, epoch=2, shuffle_buffer=5) == [
        *(9, 16, 15, 1, 2, 14, 11, 7, 10, 0, 3, 8, 17, 6, 5, 13, 12, 4),
    ]


@pytest.mark.parametrize("counts", [[1], [7], [2, 0, 5], COUNTS, [1] * 9])
@pytest.mark.parametrize("shuffle_buffer", [1, 2, 1000])
def test_an_epoch_is_a_permutation(counts, shuffle_buffer):
    result = indices(counts, seed=3, epoch=4, shuffle_buffer=shuffle_buffer)
    assert sorted(result) == list(range(sum(counts)))


def test_an_epoch_of_anything_is_a_permutation():
    hypothesis = pytest.importorskip("hypothesis")
    st = pytest.importorskip("hypothesis.strategies")

    @hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
    @hypothesis.given(
        counts=st.lists(st.integers(0, 9), min_size=1, max_size=9).filter(any),
        seed=st.integers(0, 2**31 - 1),
        epoch=st.integers(0, 1000),
        shuffle_buffer=st.integers(1, 90),
    )
    def holds(counts, seed, epoch, shuffle_buffer):
        result = indices(counts, seed=seed, epoch=epoch, shuffle_buffer=shuffle_buffer)
        assert sorted(result) == list(range(sum(counts)))

    holds()


@pytest.mark.parametrize("shuffle_buffer", [1, 2, 5, 18])
def test_the_buffer_bounds_how_early_an_example_comes(shuffle_buffer):
    place = {index: place for place, index in enumerate(indices(seed=5))}
    shuffled = indices(seed=5, shuffle_buffer=shuffle_buffer)
    early = [place[index] - position for position, index in enumerate(shuffled)]
    assert max(early) < shuffle_buffer
    assert any(early) == (shuffle_buffer > 1)


@pytest.mark.parametrize("shuffle_buffer", [1, 18])
def test_seeds_and_epochs_have_orders_of_their_own(shuffle_buffer):
    def all_orders():
        return [
            tuple(indices(seed=seed, epoch=epoch, shuffle_buffer=shuffle_buffer))
            for seed, epoch in itertools.product((0, 1, 2**31 - 1), (0, 1, 2))
        ]

    orders = all_orders()
    assert len(set(orders)) == 9
    assert all_orders() == orders


def test_the_epoch_may_be_a_tensor():
    epoch = tf.constant(2, tf.int32)
    assert indices(seed=1, epoch=epoch, shuffle_buffer=5) == indices(
        seed=1, epoch=2, shuffle_buffer=5
    )


@pytest.fixture
def global_seed():
    tf.random.set_seed(7)
    yield
    tf.random.set_seed(None)


def test_the_global_seed_changes_nothing(global_seed):
    test_the_order_stays_the_same_in_every_version()


@pytest.mark.parametrize("shuffle_buffer", [1, 3, 100])
def test_training_sees_the_examples_in_this_order(tmp_path, shuffle_buffer):
    # An example's label is its index in file order, so a batch tells which examples it has.
    jpeg = tf.io.encode_jpeg(tf.zeros([8, 8, 3], tf.uint8)).numpy()
    serialized = [records.serialize_example(f"id{i}", jpeg, i) for i in range(23)]
    records.write_shards(str(tmp_path / "train"), serialized, 8, 5)
    split = read_split(str(tmp_path), "train", 23)

    batches = pipeline.train_dataset(
        source_of(split),
        global_batch_size=4,
        local_batch_size=4,
        augment_photo=augment_photo(8),
        seed=6,
        shuffle_buffer=shuffle_buffer,
        num_steps=15,
    )
    seen = [batch["label"].tolist() for batch in batches.as_numpy_iterator()]

    counts = [shard.count for shard in split.shards]
    epochs = [
        indices(counts, seed=6, epoch=epoch, shuffle_buffer=shuffle_buffer) for epoch in range(3)
    ]
    assert list(itertools.chain(*seen)) == epochs[0][:20] + epochs[1][:20] + epochs[2][:20]
