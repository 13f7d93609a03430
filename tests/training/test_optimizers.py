import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.training import optimizers
from flowers_tpu.training.options import TrainingOptions

pytestmark = pytest.mark.core

KERNEL = np.array([[1.0, -2.0], [0.5, 3.0]])
BIAS = np.array([0.5, -1.0])
STEPS = 8  # radam's variance becomes tractable at the sixth
_generator = np.random.default_rng(0)
GRADIENTS = [(_generator.normal(size=(2, 2)), _generator.normal(size=2)) for _ in range(STEPS)]
RATES = [0.1, 0.05, 0.2, 0.1, 0.02, 0.1, 0.05, 0.03]


def trained(name, **options):
    variables = [
        tf.Variable(KERNEL, dtype=tf.float32, name="kernel"),
        tf.Variable(BIAS, dtype=tf.float32, name="bias"),
    ]
    step = tf.Variable(0)
    optimizer = optimizers.make_optimizer(
        TrainingOptions(optimizer=name, **options),
        lambda: tf.gather(tf.constant(RATES), step),
        variables,
    )
    slots = len(optimizer.variables())
    for gradients in GRADIENTS:
        optimizer.apply_gradients(
            zip([tf.constant(g, tf.float32) for g in gradients], variables, strict=True)
        )
        step.assign_add(1)
    assert len(optimizer.variables()) == slots, "a slot came late: a checkpoint would miss it"
    return [v.numpy() for v in variables]


def sgd(w, gradients, momentum):
    velocity = 0
    for g, rate in zip(gradients, RATES, strict=True):
        velocity = momentum * velocity - rate * g
        w = w + momentum * velocity - rate * g if momentum else w - rate * g
    return w


def adam(w, gradients, decay=0.0):
    m = v = 0
    for t, (g, rate) in enumerate(zip(gradients, RATES, strict=True), start=1):
        w = w - rate * decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        scale = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w - rate * scale * m / (np.sqrt(v) + 1e-7)
    return w


def lamb(w, gradients, decay):
    """Biases (no decay) have no layer adaptation either."""
    m = v = 0
    for t, (g, rate) in enumerate(zip(gradients, RATES, strict=True), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        update = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + decay * w
        ratio = np.linalg.norm(w) / np.linalg.norm(update) if decay else 1
        w = w - rate * ratio * update
    return w


def radam(w, gradients, decay):
    m = v = 0
    longest = 2 / (1 - 0.999) - 1
    for t, (g, rate) in enumerate(zip(gradients, RATES, strict=True), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        n = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        update = m / (1 - 0.9**t)
        if n >= 5:
            rectified = (n - 4) * (n - 2) * longest / ((longest - 4) * (longest - 2) * n)
            update = update * np.sqrt(rectified) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
        w = w - rate * (update + decay * w)
    return w


def novograd(w, gradients, decay):
    velocity, v = 0, None
    for g, rate in zip(gradients, RATES, strict=True):
        v = (g**2).sum() if v is None else 0.999 * v + 0.001 * (g**2).sum()
        velocity = 0.9 * velocity - rate * (g / (np.sqrt(v) + 1e-7) + decay * w)
        w = w + velocity
    return w


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(momentum):
    kernel, bias = trained("sgd", momentum=momentum)
    np.testing.assert_allclose(kernel, sgd(KERNEL, [g[0] for g in GRADIENTS], momentum), rtol=1e-5)
    np.testing.assert_allclose(bias, sgd(BIAS, [g[1] for g in GRADIENTS], momentum), rtol=1e-5)


def test_adam():
    kernel, bias = trained("adam")
    np.testing.assert_allclose(kernel, adam(KERNEL, [g[0] for g in GRADIENTS]), rtol=1e-4)
    np.testing.assert_allclose(bias, adam(BIAS, [g[1] for g in GRADIENTS]), rtol=1e-4)


def test_adamw_decays_kernels_alone():
    kernel, bias = trained("adamw", weight_decay=0.1)
    np.testing.assert_allclose(kernel, adam(KERNEL, [g[0] for g in GRADIENTS], 0.1), rtol=1e-4)
    np.testing.assert_allclose(bias, adam(BIAS, [g[1] for g in GRADIENTS]), rtol=1e-4)


@pytest.mark.parametrize(("name", "reference"), [("lamb", lamb), ("radam", radam),
                                                 ("novograd", novograd)])  # fmt: skip
def test_addons(name, reference):
    kernel, bias = trained(name, weight_decay=0.1)
    np.testing.assert_allclose(kernel, reference(KERNEL, [g[0] for g in GRADIENTS], 0.1), rtol=1e-4)
    decay = 0 if name == "lamb" else 0.1  # the others have no way to leave biases out
    np.testing.assert_allclose(bias, reference(BIAS, [g[1] for g in GRADIENTS], decay), rtol=1e-4)
