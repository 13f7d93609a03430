"""Dropout as a function of (seed of the step, layer), the same on any number of replicas.

Keras' dropout draws from a generator that no checkpoint holds, so a resumed run would go another
way; and each replica draws its own numbers, so the run would depend on their count. Here the mask
is drawn for the *global* batch, and each replica cuts out the rows it holds: 1, 2 or 8 replicas
drop the same units of the same examples.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from flowers_tpu.models.cloning import Rule

# MirroredStrategy traces its replicas in threads of their own.
_scope = threading.local()


class Part(NamedTuple):
    """Which part of a replica's examples a call sees.

    Attributes:
        number: from 0; may be a tensor.
        parts: how many there are, all equally large.
    """

    number: tf.Tensor | int = 0
    parts: int = 1


@contextlib.contextmanager
def dropout_seed(seed: tf.Tensor, part: Part | None = None) -> Iterator[None]:
    """Within it, every `StatelessDropout` called in this thread draws from `seed`.

    ```python
    with dropout_seed(seed):
        logits = model(images, training=True)
    ```

    Args:
        seed: int32 `[2]`, another for each step and the same on all replicas; symbolic in a
            `tf.function`.
        part: of the replica's examples of the step, if it sees them one part after another; None:
            all of them.
    """
    outer = getattr(_scope, "seed", None), getattr(_scope, "part", Part())
    _scope.seed, _scope.part = seed, part or Part()
    try:
        yield
    finally:
        _scope.seed, _scope.part = outer


@tf.keras.utils.register_keras_serializable(package="flowers_tpu")
class StatelessDropout(tf.keras.layers.Layer):
    """`tf.keras.layers.Dropout` whose mask depends on `dropout_seed` and `salt` alone.

    In training, replica r of n with a local batch of b takes rows [r·b, (r+1)·b) of the mask for
    the global batch of n·b, so all replicas must hold equally many examples; a part of a replica's
    batch takes its part of these rows. Kept units are scaled by 1 / (1 - rate).

    Args:
        rate: share of units to drop, in [0, 1).
        noise_shape: shape of the mask, broadcast over the input; None entries mean the input's own
            size, None means the input's shape. `(None, 1, 1, 1)` drops whole examples: stochastic
            depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382). The first entry is None, or
            1 for one mask shared by the global batch.
        salt: distinguishes the layers of a model from one another.

    Raises:
        ValueError: `rate` or `noise_shape` is none of these; in training, the input's shape is not
            static.
        RuntimeError: in training, outside `dropout_seed` or outside a replica of the strategy.
    """

    def __init__(
        self,
        rate: float,
        noise_shape: tuple[int | None, ...] | None = None,
        salt: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1), not {rate}.")
        if noise_shape is not None and noise_shape[0] not in (None, 1):
            raise ValueError(f"noise_shape must begin with None or 1, not be {noise_shape}.")
        self.rate = rate
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)
        self.salt = salt
        self.supports_masking = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Drops units of `inputs` where `training`; else returns them as they are."""
        if not training or self.rate == 0:
            return tf.identity(inputs)
        keep = self._bits_of_this_replica(inputs.shape) >= np.uint32(self.rate * 2**32)
        # A product: choosing between two large tensors by a small one is slow on a CPU.
        return inputs * tf.where(keep, tf.cast(1 / (1 - self.rate), inputs.dtype), 0)

    def _bits_of_this_replica(self, input_shape: tf.TensorShape) -> tf.Tensor:
        """Uniform uint32 numbers of the shape of the local mask."""
        seed = getattr(_scope, "seed", None)
        replica = tf.distribute.get_replica_context()
        if seed is None:
            raise RuntimeError(
                f"Layer {self.name} is called in training without a seed: call the model within "
                "`with dropout_seed(seed):`."
            )
        if replica is None:
            raise RuntimeError(
                f"Layer {self.name} is called in training outside a replica: call the model within "
                "`strategy.run`."
            )
        if not input_shape.is_fully_defined():
            raise ValueError(
                f"Layer {self.name} needs a static shape in training, but got {input_shape}."
            )
        noise_shape = self.noise_shape or (None,) * input_shape.rank
        shape = [
            size if noise is None else noise
            for size, noise in zip(input_shape, noise_shape, strict=True)
        ]
        rows, part = shape[0], _scope.part
        shared = noise_shape[0] is not None
        places = 1 if shared else replica.num_replicas_in_sync * part.parts
        # Philox by name, for "auto" is another generator on a TPU than on a CPU; and integers, for
        # from the same bits XLA makes other floats than TensorFlow's own kernels do.
        drawn = tf.random.stateless_uniform(
            [rows * places, *shape[1:]],
            seed=tf.random.experimental.stateless_fold_in(seed, self.salt, alg="philox"),
            minval=None,
            maxval=None,
            dtype=tf.uint32,
            alg="philox",
        )
        if places == 1:
            return drawn
        first = (replica.replica_id_in_sync_group * part.parts + part.number) * rows
        return tf.slice(drawn, [first] + [0] * (len(shape) - 1), shape)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        own = {"rate": self.rate, "noise_shape": self.noise_shape, "salt": self.salt}
        return {**super().get_config(), **own}


def dropout_rule(model: tf.keras.Model) -> Rule:
    """The rule that exchanges the `Dropout` layers of `model`, salted 1, 2, … by position.

    0 is left to the classification head.
    """
    names = [layer.name for layer in model.layers if type(layer) is tf.keras.layers.Dropout]
    salts = {name: salt for salt, name in enumerate(names, start=1)}

    def rule(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer | None:
        if layer.name not in salts:
            return None
        return StatelessDropout(
            layer.rate,
            noise_shape=layer.noise_shape,
            salt=salts[layer.name],
            name=layer.name,
            dtype=layer.dtype_policy,
        )

    return rule
