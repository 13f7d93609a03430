"""All that a checkpoint holds, and nothing else."""

import contextlib
import dataclasses
import json

import numpy as np
import tensorflow as tf

from flowers_tpu.models.classifier import Classifier
from flowers_tpu.training.averages import Averages
from flowers_tpu.training.history import Row, of_version_0_1
from flowers_tpu.training.loss_scale import LossScale
from flowers_tpu.training.metrics import Sums
from flowers_tpu.training.optimizers import Optimizer


class Progress(tf.train.experimental.PythonState):
    """What a run knows of itself beside its weights.

    Attributes:
        history: a row per finished epoch, as in `history.csv`.
        skipped: steps whose update was left out, as loss or gradients were not finite.
        sums: the running epoch's `metrics` sums so far.
    """

    def __init__(self, sums: Sums):
        self.history: list[Row] = []
        self.skipped: list[int] = []
        self.sums = sums

    def serialize(self) -> str:
        """Everything, as JSON; floats come back the same to the last bit."""
        sums = {name: np.asarray(value).tolist() for name, value in self.sums.items()}
        return json.dumps({"history": self.history, "skipped": self.skipped, "sums": sums})

    def deserialize(self, string_value: str) -> None:
        """Takes over what `serialize` gave."""
        values = json.loads(string_value)
        self.history = of_version_0_1(values["history"])
        self.skipped = values["skipped"]
        self.sums = {name: np.asarray(value, np.float64) for name, value in values["sums"].items()}


@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of a run between two steps.

    Attributes:
        classifier: the model.
        warmup_optimizer: of the head's variables, used in the warm-up only.
        finetune_optimizer: of all trainable variables, or of the head's alone if the backbone has
            a rate of its own; fresh when fine-tuning begins.
        backbone_optimizer: of the backbone's, if that has a rate of its own.
        step: int64, the number of steps done: with the seed it tells the next batch, its
            augmentation, its dropout and its rate.
        progress: the history and the running epoch's sums.
        averages: of the model's weights, if they are averaged; results are theirs then.
        loss_scale: in float16.
    """

    classifier: Classifier
    warmup_optimizer: Optimizer
    finetune_optimizer: Optimizer
    step: tf.Variable
    progress: Progress
    averages: Averages | None = None
    backbone_optimizer: Optimizer | None = None
    loss_scale: LossScale | None = None

    def checkpoint(self) -> tf.train.Checkpoint:
        """Everything that the next step depends on."""
        averages = None if self.averages is None else self.averages.checkpoint()
        optional = {
            "averages": averages,
            "backbone_optimizer": self.backbone_optimizer,
            "loss_scale": self.loss_scale,
        }
        return tf.train.Checkpoint(
            model=self.classifier.model,
            warmup_optimizer=self.warmup_optimizer,
            finetune_optimizer=self.finetune_optimizer,
            step=self.step,
            progress=self.progress,
            **{name: part for name, part in optional.items() if part is not None},
        )

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Within it the model has the weights that results are made with."""
        return contextlib.nullcontext() if self.averages is None else self.averages.in_place()


def step_counter() -> tf.Variable:
    """Returns a step variable at 0; call it under the strategy's scope."""
    return tf.Variable(
        0,
        dtype=tf.int64,
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        name="step",
    )
