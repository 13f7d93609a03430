import threading

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.models.cloning import clone_with_rules
from flowers_tpu.models.dropout import StatelessDropout, dropout_rule, dropout_seed

SEED = tf.constant([3, 14], tf.int32)
OTHER_SEED = tf.constant([3, 15], tf.int32)


def drop(layer, inputs, seed=SEED):
    with dropout_seed(seed):
        return layer(inputs, training=True)


@pytest.mark.parametrize(
    ("noise_shape", "distinct_rows"),
    [(None, 12), ((None, 1, 1, 1), 2), ((None, 1, 1, None), 12), ((1, None, None, None), 1)],
)
def test_replicas_drop_the_same_units_of_a_global_batch(
    noise_shape, distinct_rows, make_strategy, on_replicas
):
    layer = StatelessDropout(0.4, noise_shape=noise_shape, salt=7)
    batch = np.ones((12, 3, 5, 16), np.float32)
    outputs = [
        on_replicas(make_strategy(replicas), lambda rows: drop(layer, rows), batch)
        for replicas in (1, 2, 4)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])
    # Were each replica to draw the same numbers, rows would repeat.
    assert len(np.unique(outputs[0].reshape(12, -1), axis=0)) == distinct_rows


def test_kept_units_are_scaled_and_the_rest_is_zero():
    inputs = tf.fill([100, 1000], 3.0)
    outputs = drop(StatelessDropout(0.25), inputs).numpy()
    assert set(np.unique(outputs)) == {0.0, 4.0}  # 3 / (1 - 0.25)
    # 100,000 draws of probability 0.75: standard deviation 0.00137.
    assert abs(np.mean(outputs > 0) - 0.75) < 5 * 0.00137
    # Per column, 100 draws, deviation 0.0433; per row, 1000 draws, deviation 0.0137.
    assert np.all(np.abs(np.mean(outputs > 0, axis=0) - 0.75) < 6 * 0.0433)
    assert np.all(np.abs(np.mean(outputs > 0, axis=1) - 0.75) < 6 * 0.0137)


def test_stochastic_depth_drops_whole_examples():
    inputs = tf.ones([64, 4, 4, 3])
    outputs = drop(StatelessDropout(0.5, noise_shape=(None, 1, 1, 1)), inputs).numpy()
    sums = outputs.sum(axis=(1, 2, 3))
    assert set(sums) == {0.0, 96.0}  # 4 · 4 · 3 / (1 - 0.5)


def test_a_mask_is_a_function_of_seed_and_salt():
    inputs = tf.ones([4, 100])
    first = drop(StatelessDropout(0.5, salt=1), inputs)
    np.testing.assert_array_equal(first, drop(StatelessDropout(0.5, salt=1), inputs))
    other_layer = drop(StatelessDropout(0.5, salt=2), inputs)
    other_step = drop(StatelessDropout(0.5, salt=1), inputs, OTHER_SEED)
    for other in (other_layer, other_step):
        # Independent masks of 400 units agree on half of them, with a deviation of 10.
        assert 140 < np.sum(np.equal(first, other)) < 260


def test_the_seed_of_a_compiled_function_is_an_argument():
    layer = StatelessDropout(0.5, salt=1)
    traces = []

    @tf.function
    def step(inputs, seed):
        traces.append(None)
        return drop(layer, inputs, seed)

    inputs = tf.ones([4, 100])
    for seed in (SEED, OTHER_SEED):
        np.testing.assert_array_equal(step(inputs, seed), drop(layer, inputs, seed))
    assert len(traces) == 1


def test_xla_compiles_it_to_the_same_numbers(make_strategy):
    layer = StatelessDropout(0.5, noise_shape=(None, 1, None), salt=1)
    inputs = tf.ones([8, 5, 20])
    compiled = tf.function(lambda seed: drop(layer, inputs, seed), jit_compile=True)
    np.testing.assert_array_equal(compiled(SEED), drop(layer, inputs))

    # With several replicas, the rows to cut out are known only at run time.
    strategy = make_strategy(2)
    outputs = strategy.experimental_local_results(
        tf.function(lambda: strategy.run(lambda: compiled(SEED)))()
    )
    assert not np.array_equal(outputs[0], outputs[1])


def test_the_gradient_is_the_mask():
    inputs = tf.random.stateless_normal([8, 50], seed=[0, 1])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = drop(StatelessDropout(0.2), inputs)
    expected = np.where(outputs.numpy() == 0, 0, 1.25)
    np.testing.assert_allclose(tape.gradient(outputs, inputs), expected, rtol=1e-6)


def test_bfloat16_stays_bfloat16_with_the_same_mask():
    inputs = tf.ones([8, 50])
    plain = drop(StatelessDropout(0.5, salt=1), inputs)
    mixed = drop(StatelessDropout(0.5, salt=1, dtype="mixed_bfloat16"), inputs)
    assert mixed.dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(mixed, tf.float32), plain)


@pytest.mark.parametrize("training", [False, None])
def test_inference_needs_no_seed_and_changes_nothing(training):
    inputs = tf.random.stateless_normal([8, 50], seed=[0, 1])
    np.testing.assert_array_equal(StatelessDropout(0.5)(inputs, training=training), inputs)


def test_training_without_a_seed_says_what_to_do():
    layer = StatelessDropout(0.5, name="some_layer")
    with pytest.raises(RuntimeError, match=r"some_layer.*with dropout_seed\(seed\)"):
        layer(tf.ones([2, 3]), training=True)
    with dropout_seed(SEED):
        pass
    with pytest.raises(RuntimeError, match="without a seed"):
        layer(tf.ones([2, 3]), training=True)


def test_training_outside_a_replica_says_what_to_do(make_strategy):
    layer = StatelessDropout(0.5, name="some_layer")
    with make_strategy(2).scope(), pytest.raises(RuntimeError, match=r"some_layer.*strategy\.run"):
        drop(layer, tf.ones([2, 3]))


def test_training_needs_a_static_batch():
    layer = StatelessDropout(0.5)
    function = tf.function(lambda x: drop(layer, x), input_signature=[tf.TensorSpec([None, 3])])
    with pytest.raises(ValueError, match="static shape"):
        function(tf.ones([2, 3]))


def test_seeds_nest_and_belong_to_a_thread():
    layer, inputs, seen = StatelessDropout(0.5), tf.ones([4, 100]), []

    def in_another_thread():
        try:
            layer(inputs, training=True)
        except RuntimeError as error:
            seen.append(str(error))

    with dropout_seed(SEED):
        with dropout_seed(OTHER_SEED):
            inner = layer(inputs, training=True)
        outer = layer(inputs, training=True)
        thread = threading.Thread(target=in_another_thread)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(outer, drop(layer, inputs, SEED))
    np.testing.assert_array_equal(inner, drop(layer, inputs, OTHER_SEED))
    assert "without a seed" in seen[0]


@pytest.mark.parametrize("arguments", [{"rate": 1.0}, {"rate": -0.1}])
def test_a_rate_outside_its_range_is_refused(arguments):
    with pytest.raises(ValueError, match="rate"):
        StatelessDropout(**arguments)


def test_a_mask_for_a_fixed_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="noise_shape"):
        StatelessDropout(0.5, noise_shape=(4, 1))


def test_every_dropout_of_a_backbone_is_replaced():
    original = tf.keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    original.set_weights(
        [np.full_like(weight, index) for index, weight in enumerate(original.get_weights())]
    )
    model = clone_with_rules(original, dropout_rule(original))

    kinds = [type(layer) for layer in model.layers]
    ours = [layer for layer in model.layers if isinstance(layer, StatelessDropout)]
    assert tf.keras.layers.Dropout not in kinds
    assert [layer.salt for layer in ours] == list(range(1, 10))
    replaced = [x for x in original.layers if isinstance(x, tf.keras.layers.Dropout)]
    assert [(x.name, x.rate, x.noise_shape) for x in ours] == [
        (x.name, x.rate, x.noise_shape) for x in replaced
    ]
    assert [layer.name for layer in model.layers] == [layer.name for layer in original.layers]
    for copied, weight in zip(model.get_weights(), original.get_weights(), strict=True):
        np.testing.assert_array_equal(copied, weight)

    rebuilt = StatelessDropout.from_config(ours[3].get_config())
    assert (rebuilt.name, rebuilt.salt, rebuilt.rate) == (ours[3].name, 4, ours[3].rate)
    assert rebuilt.noise_shape == (None, 1, 1, 1)
