"""The optimizers on offer, all of one kind so that the loop treats them alike.

They are Keras 2's *legacy* optimizers, as those of TensorFlow Addons are: their updates are fused
kernels, they take the rate as a callable, and all of their state is in `variables()`.
"""

import re
from collections.abc import Callable, Sequence

import tensorflow as tf

from flowers_tpu.system import addons
from flowers_tpu.training.options import TrainingOptions

Optimizer = tf.keras.optimizers.legacy.Optimizer


class AdamW(tf.keras.optimizers.legacy.Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101).

    Before Adam's own update each kernel `w` becomes `w - rate * weight_decay * w`, as in Keras' and
    PyTorch's; biases and the scales of normalizations do not decay.
    """

    def __init__(self, learning_rate, weight_decay: float, name: str = "AdamW"):
        super().__init__(learning_rate, name=name)
        self._weight_decay = weight_decay

    def _resource_apply_dense(self, grad, var, apply_state):
        if var.shape.rank > 1 and self._weight_decay:
            rate = apply_state[(var.device, var.dtype.base_dtype)]["lr_t"]
            decay = var.assign_sub(rate * self._weight_decay * var, use_locking=self._use_locking)
            with tf.control_dependencies([decay]):
                return super()._resource_apply_dense(grad, var, apply_state)
        return super()._resource_apply_dense(grad, var, apply_state)


def make_optimizer(
    options: TrainingOptions,
    learning_rate: Callable[[], tf.Tensor],
    variables: Sequence[tf.Variable],
) -> Optimizer:
    """Makes an optimizer with all its slots; call it under the strategy's scope.

    Args:
        options: `optimizer`: `sgd` (Nesterov), `adam`, `adamw`, `lamb` (arXiv:1904.00962), `radam`
            (arXiv:1908.03265) or `novograd` (arXiv:1905.11286); with momentum and weight decay.
        learning_rate: gives the rate of the current step.
        variables: what it will update.

    Raises:
        RequestError: TensorFlow Addons is needed and not installed.
    """
    name, momentum, weight_decay = options.optimizer, options.momentum, options.weight_decay
    if name == "sgd":
        optimizer = tf.keras.optimizers.legacy.SGD(learning_rate, momentum, nesterov=momentum > 0)
    elif name == "adam":
        optimizer = tf.keras.optimizers.legacy.Adam(learning_rate)
    elif name == "adamw":
        optimizer = AdamW(learning_rate, weight_decay)
    else:
        tfa = addons.tensorflow_addons(f"--optimizer={name}")
        makers = {
            "lamb": lambda: tfa.optimizers.LAMB(
                learning_rate,
                weight_decay=weight_decay,
                exclude_from_weight_decay=[
                    _only(variable) for variable in variables if variable.shape.rank < 2
                ],
            ),
            "radam": lambda: tfa.optimizers.RectifiedAdam(learning_rate, weight_decay=weight_decay),
            "novograd": lambda: tfa.optimizers.NovoGrad(learning_rate, weight_decay=weight_decay),
        }
        optimizer = makers[name]()
    optimizer._create_all_weights(variables)  # now, so that a checkpoint finds every slot to fill
    return optimizer


def _only(variable: tf.Variable) -> str:
    """A regular expression for the name of a variable and those of its replicas' copies."""
    return rf"^{re.escape(variable.name.removesuffix(':0'))}(/replica_\d+)?:0$"
