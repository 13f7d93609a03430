import random

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.models.classifier import (
    ParameterCounts,
    batch_norm_statistics,
    parameter_counts,
)
from flowers_tpu.models.dropout import dropout_seed
from flowers_tpu.system.errors import RequestError
from tests.photos import small_classifier


def build(backbone, **options):
    return small_classifier(5, backbone=backbone, **options)


def network_of(classifier):
    """The backbone inside."""
    return next(x for x in classifier.features.layers if isinstance(x, tf.keras.Model))


def train_forward(model, images, seed=0):
    with dropout_seed(tf.constant([seed, 0])):
        return model(images, training=True)


def assert_equal_weights(first, second):
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
def test_the_model_is_its_head_on_its_features(tiny, arithmetic, pixels):
    classifier = build(tiny, arithmetic=arithmetic)
    features, logits = classifier.features(pixels), classifier.model(pixels)
    assert (features.dtype, features.shape) == (tf.float32, (4, 6))
    assert (logits.dtype, logits.shape) == (tf.float32, (4, 5))
    np.testing.assert_array_equal(logits, classifier.head(features))
    # The head is one matrix product, of float32 numbers in both precisions.
    kernel, bias = classifier.head.get_weights()
    np.testing.assert_allclose(logits, features.numpy() @ kernel + bias, rtol=1e-5, atol=1e-6)


def test_the_model_shares_the_variables_of_its_halves(tiny):
    classifier = build(tiny)
    halves = classifier.features.variables + classifier.head.variables
    assert [id(v) for v in classifier.model.variables] == [id(v) for v in halves]


def test_features_are_pooled_maps_of_preprocessed_pixels(tiny, pixels):
    classifier = build(tiny)
    kernel = network_of(classifier).get_layer("conv").get_weights()[0]
    maps = tf.nn.conv2d((pixels / 127.5 - 1).astype(np.float32), kernel, 4, "VALID")
    # A fresh batch normalization divides by sqrt(1 + epsilon).
    expected = maps.numpy().mean(axis=(1, 2)) / np.sqrt(1.001)
    np.testing.assert_allclose(classifier.features(pixels), expected, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_for_the_arithmetic_of_the_backbone_alone(tiny):
    classifier = build(tiny, arithmetic="bfloat16")
    assert network_of(classifier).output.dtype == tf.bfloat16
    assert {variable.dtype for variable in classifier.model.variables} == {tf.float32}
    assert tf.keras.mixed_precision.global_policy().name == "float32"


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
def test_preprocessing_inside_a_backbone_is_float32(tiny_normalizing, arithmetic):
    network = network_of(build(tiny_normalizing, arithmetic=arithmetic))
    images = tf.broadcast_to([124.0, 116.0, 104.0], [1, 32, 32, 3])
    normalized = tf.keras.Model(network.input, network.get_layer("padding").input)(images)
    assert normalized.dtype == tf.float32
    # (124 / 255 - 0.485) / 0.229 and so on; in bfloat16 each is off by more than a third.
    np.testing.assert_allclose(normalized[0, 16, 16], [0.0055655, -0.0049020, 0.0081917], rtol=1e-3)


def test_a_later_input_normalization_is_heeded(tiny_normalizing, pixels):
    # As a checkpoint does it. Keras' own layer would go on with the values it was built with.
    classifier = build(tiny_normalizing)
    compiled = tf.function(classifier.features)
    before = compiled(pixels).numpy()
    variables = {variable.name: variable for variable in classifier.model.variables}
    variables["normalization/variance:0"].assign([1.0, 1.0, 1.0])
    assert not np.allclose(compiled(pixels), before, rtol=1e-2)


def test_the_policy_is_restored_after_an_error(tiny):
    with pytest.raises(RequestError):
        build(tiny, arithmetic="bfloat16", weights="/no/such/file.h5")
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_initial_weights_are_a_function_of_the_seed(tiny):
    first = build(tiny, seed=3)
    # Whatever happened in the process meanwhile.
    tf.keras.utils.set_random_seed(99)
    tf.keras.Sequential([tf.keras.layers.Dense(4, input_shape=(3,), name="logits")])
    tf.random.normal([3])
    second = build(tiny, seed=3)
    assert_equal_weights(first.model, second.model)

    other = build(tiny, seed=4)
    assert not np.array_equal(first.head.get_weights()[0], other.head.get_weights()[0])
    kernels = [network_of(x).get_layer("conv").get_weights()[0] for x in (first, other)]
    assert not np.array_equal(*kernels)


def test_automatic_names_do_not_depend_on_what_was_built_before(tiny_normalizing):
    tf.keras.layers.Normalization()
    layers = network_of(build(tiny_normalizing)).layers
    assert [layer.name for layer in layers[1:3]] == ["rescaling", "normalization"]


def test_other_random_numbers_do_not_depend_on_the_build(tiny):
    def numbers(built):
        random.seed(1)
        np.random.seed(1)
        if built:
            build(tiny, seed=3)
        return random.random(), np.random.uniform()

    assert numbers(built=True) == numbers(built=False)
    # TensorFlow's seed is unset, so its numbers are not those of the last build.
    draws = []
    for _ in range(2):
        build(tiny, seed=3)
        draws.append(tf.random.uniform([4]).numpy())
    assert not np.array_equal(*draws)


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_initial_weights_do_not_depend_on_replicas(tiny, replicas, make_strategy):
    with make_strategy(replicas).scope():
        distributed = build(tiny, seed=3)
    assert_equal_weights(distributed.model, build(tiny, seed=3).model)


def copies(variable, strategy):
    return [value.numpy() for value in strategy.experimental_local_results(variable)]


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_checkpoint_holds_the_first_replicas_statistics(
    tiny, replicas, make_strategy, on_replicas, tmp_path
):
    strategy = make_strategy(replicas)
    with strategy.scope():
        classifier = build(tiny)
    batch = np.random.default_rng(0).integers(0, 256, (6 * replicas, 32, 32, 3), dtype=np.uint8)
    on_replicas(strategy, lambda images: train_forward(classifier.model, images), batch)
    statistics = batch_norm_statistics(classifier.model).per_replica
    trained = [copies(variable, strategy) for variable in statistics]
    assert len(trained) == 2
    for values in trained:
        # Each replica has seen other images.
        assert not np.array_equal(values[0], values[1])

    checkpoint = tf.train.Checkpoint(model=classifier.model)
    path = checkpoint.save(str(tmp_path / "checkpoint"))
    for variable in statistics:
        variable.assign(tf.zeros_like(variable))
    checkpoint.restore(path).assert_consumed()
    for variable, values in zip(statistics, trained, strict=True):
        for restored in copies(variable, strategy):
            np.testing.assert_array_equal(restored, values[0])
        np.testing.assert_array_equal(variable.numpy(), values[0])

    # And into a model that is not distributed.
    alone = build(tiny)
    tf.train.Checkpoint(model=alone.model).restore(path).assert_consumed()
    for variable, values in zip(batch_norm_statistics(alone.model).all, trained, strict=True):
        np.testing.assert_array_equal(variable.numpy(), values[0])


@pytest.mark.parametrize("replicas", [1, 2])
def test_loaded_weights_arrive_on_every_replica(tiny, replicas, make_strategy, tmp_path):
    network = network_of(build(tiny))
    network.set_weights(
        [np.full_like(weight, index) for index, weight in enumerate(network.get_weights())]
    )
    network.save_weights(tmp_path / "tiny.h5")
    strategy = make_strategy(replicas)
    with strategy.scope():
        loaded = network_of(build(tiny, weights=str(tmp_path / "tiny.h5")))
    for variable, expected in zip(loaded.variables, network.get_weights(), strict=True):
        for value in copies(variable, strategy):
            np.testing.assert_array_equal(value, expected)


def test_frozen_batch_norm_is_neither_trained_nor_updated(tiny, pixels):
    frozen = build(tiny, batch_norm="frozen")
    assert batch_norm_statistics(frozen.model) == ([], [])
    names = [variable.name for variable in frozen.features.trainable_variables]
    assert names == ["conv/kernel:0", "conv/bias:0"]
    before = network_of(frozen).get_layer("bn").get_weights()
    train_forward(frozen.model, pixels)
    for was, is_now in zip(before, network_of(frozen).get_layer("bn").get_weights(), strict=True):
        np.testing.assert_array_equal(was, is_now)


def test_per_replica_batch_norm_is_trained_and_updated(tiny, pixels):
    classifier = build(tiny)
    statistics = batch_norm_statistics(classifier.model)
    moving_mean, moving_variance = statistics.per_replica
    assert list(map(id, statistics.all)) == list(map(id, statistics.per_replica))
    assert (moving_mean.name, moving_variance.name) == ("bn/moving_mean:0", "bn/moving_variance:0")
    network = network_of(classifier)
    maps = network.get_layer("conv")((pixels / 127.5 - 1).astype(np.float32)).numpy()
    train_forward(classifier.model, pixels)
    # Momentum 0.5, from 0.
    np.testing.assert_allclose(moving_mean, maps.mean(axis=(0, 1, 2)) / 2, rtol=1e-4, atol=1e-6)


def test_synchronized_batch_norm_takes_the_statistics_of_the_global_batch(
    tiny, pixels, make_strategy, on_replicas
):
    outputs, statistics = {}, {}
    for replicas in (1, 2):
        for kind in ("synchronized", "per_replica"):
            strategy = make_strategy(replicas)
            with strategy.scope():
                model = build(tiny, batch_norm=kind).model
            outputs[kind, replicas] = on_replicas(
                strategy, lambda images, model=model: train_forward(model, images), pixels
            )
            statistics[kind, replicas] = [
                copies(variable, strategy) for variable in batch_norm_statistics(model).all
            ]
            # What is equal already is not to be averaged once more.
            of_replicas = batch_norm_statistics(model).per_replica
            assert len(of_replicas) == {"synchronized": 0, "per_replica": 2}[kind]
    np.testing.assert_allclose(
        outputs["synchronized", 2], outputs["synchronized", 1], rtol=1e-4, atol=1e-5
    )
    assert not np.allclose(outputs["per_replica", 2], outputs["per_replica", 1])
    for first, second in statistics["synchronized", 2]:
        np.testing.assert_array_equal(first, second)
    for first, second in statistics["per_replica", 2]:
        assert not np.array_equal(first, second)


def test_dropout_layers_of_backbone_and_head_are_stateless_and_distinct(tiny, pixels):
    classifier = build(tiny, dropout=0.5, batch_norm="frozen")
    with pytest.raises(RuntimeError, match="without a seed"):
        classifier.model(pixels, training=True)
    first, again, other = (train_forward(classifier.model, pixels, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    salts = {network_of(classifier).get_layer("drop").salt, classifier.head.layers[1].salt}
    assert salts == {0, 1}


def test_dropout_of_the_head_drops_features(tiny):
    head = build(tiny, dropout=0.5).head
    kernel = head.get_weights()[0]
    features = tf.eye(6)
    np.testing.assert_allclose(head(features), kernel, rtol=1e-6)
    rows = train_forward(head, features).numpy()
    doubled = np.isclose(rows, 2 * kernel).all(axis=1)
    zero = (rows == 0).all(axis=1)
    assert np.all(doubled | zero)
    assert doubled.any()
    assert zero.any()


def test_parameters_are_counted(tiny):
    # Convolution 3·3·3·6 + 6, batch normalization 4·6 of which half is trained; head 6·5 + 5.
    assert parameter_counts(build(tiny)) == ParameterCounts(168 + 12, 168 + 24, 35, 35)
    assert parameter_counts(build(tiny, batch_norm="frozen"))[:2] == (168, 168 + 24)


def test_images_that_are_too_small_are_refused_by_flag(tiny):
    with pytest.raises(RequestError, match=r"--image_size=16 .*at least 32"):
        build(tiny, image_size=16)


def test_weights_that_there_are_not_are_refused_by_flag(tiny):
    with pytest.raises(RequestError, match=r"--weights=imagenet.*none for --backbone=tiny"):
        build(tiny, weights="imagenet")
