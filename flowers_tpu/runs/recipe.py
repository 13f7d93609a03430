"""A specification on its devices: it gives everything that a run is made of.

Whatever trains, measures or compiles the real thing takes its parts from here.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from flowers_tpu.data import check, records
from flowers_tpu.models.classifier import Classifier, build_classifier
from flowers_tpu.runs import data as data_lib
from flowers_tpu.runs.data import Data
from flowers_tpu.runs.folder import model_of
from flowers_tpu.runs.spec import Resolved, Spec, compiles_passes, resolve
from flowers_tpu.system.devices import Devices, Facts, choose_devices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.training import losses, metrics, optimizers, schedule
from flowers_tpu.training.averages import Averages
from flowers_tpu.training.loss_scale import LossScale
from flowers_tpu.training.optimizers import Optimizer
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.state import Progress, TrainState, step_counter
from flowers_tpu.training.steps import Objective, trained_in_finetuning

_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A specification on its devices.

    Attributes:
        spec: as asked for.
        devices: what runs it.
        resolved: what is decided for them.
    """

    spec: Spec
    devices: Devices
    resolved: Resolved

    @classmethod
    def on(cls, devices: Devices, spec: Spec, begun: Resolved | None = None) -> "Recipe":
        """Resolves a specification on devices; see `spec.resolve`."""
        return cls(spec, devices, resolve(spec, devices.facts, begun))

    @classmethod
    def choose(cls, spec: Spec) -> "Recipe":
        """Chooses the devices, then resolves the specification on them."""
        return cls.on(choose_devices(spec.devices), spec)

    def changed(self, **flags: Any) -> "Recipe":
        """Returns the same on the same devices with other flags, resolved anew."""
        return Recipe.on(self.devices, self.spec.changed(**flags))

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """What runs the steps."""
        return self.devices.strategy

    @property
    def facts(self) -> Facts:
        """What is known of the devices."""
        return self.devices.facts

    @property
    def photos_per_replica(self) -> int:
        """Photos of a step that one replica gets."""
        return self.resolved.photos_per_step // self.facts.replicas

    @property
    def photos_at_once(self) -> int:
        """Photos that all replicas together look at in one go, in training and evaluation."""
        return self.resolved.photos_per_step // self.spec.training.accumulate_steps

    def data_folder(self) -> str:
        """Returns the folder that holds the splits; see `data.folder_of`."""
        return data_lib.folder_of(self.spec.data)

    def load_data(
        self,
        names: tuple[str, ...] = records.SPLITS,
        trained_names: tuple[str, ...] | None = None,
        *,
        have_labels: bool | None = None,
    ) -> Data:
        """Finds and checks the data set, or some of its splits; see `data.load`."""
        return data_lib.load(self.spec.data, names, trained_names, have_labels=have_labels)

    def naming_bad_records(self, data: Data) -> contextlib.AbstractContextManager[None]:
        """Turns the error of a photo that cannot be decoded into one that says which it is."""
        return check.naming_bad_records(data.splits.values(), data.num_classes)

    def plan(self, data: Data) -> Plan:
        """Works out every number of a run on a data set.

        Raises:
            RequestError: there are fewer training photos than a global batch has, or there is
                only one class.
        """
        if data.num_classes < 2:
            raise RequestError(
                f"--data_dir={self.spec.data.data_dir}: has one class only, "
                f"{data.class_names[0]!r}: there is nothing to tell apart. If it is the name of a "
                "folder of folders, convert from one level below"
            )
        split, batch = data.splits["train"], self.resolved.photos_per_step
        steps_per_epoch = split.size // batch
        if not steps_per_epoch:
            raise RequestError(
                f"the training split has {split.size} photos, fewer than the global batch of "
                f"{batch}; lower --batch_size_per_replica or --global_batch_size"
            )
        options, weights = self.spec.training, None
        if options.class_weights == "balanced":
            weights = losses.balanced_class_weights(split.known_labels, data.num_classes)
        return Plan(
            self.spec.schedule,
            options,
            num_classes=data.num_classes,
            photos_per_step=batch,
            steps_per_epoch=steps_per_epoch,
            rates=self.learning_rates(steps_per_epoch),
            objective=Objective(
                options, batch, weights, jit=compiles_passes(self.spec, self.facts)
            ),
            validates="val" in data.splits,
        )

    def learning_rates(self, steps_per_epoch: int) -> np.ndarray:
        """Returns the rate of every step of a run, warm-up first, `[steps]` float32."""
        return schedule.learning_rates(
            self.spec.schedule, steps_per_epoch, self.resolved.photos_per_step
        )

    def classifier(self, num_classes: int) -> Classifier:
        """Builds the model; call it under the strategy's scope."""
        return build_classifier(
            model_of(self.spec),
            num_classes=num_classes,
            image_size=self.spec.data.image_size,
            evaluation_size=self.spec.data.evaluation_size,
            arithmetic=self.resolved.arithmetic,
            seed=self.spec.training.seed,
        )

    def state(self, plan: Plan) -> TrainState:
        """Builds the state of a run before its first step."""
        with self.strategy.scope():
            classifier = self.classifier(plan.num_classes)
            step = step_counter()

            def optimizer(variables: Sequence[tf.Variable], factor: float = 1.0) -> Optimizer:
                rates = plan.rates * np.float32(factor)
                return optimizers.make_optimizer(
                    self.spec.training, lambda: tf.gather(tf.constant(rates), step), variables
                )

            head = classifier.head.trainable_variables
            factor, decay = self.spec.schedule.backbone_rate, self.spec.training.ema_decay
            own = factor != 1
            return TrainState(
                classifier,
                warmup_optimizer=optimizer(head),
                finetune_optimizer=optimizer(head if own else trained_in_finetuning(classifier)),
                backbone_optimizer=(
                    optimizer(classifier.features.trainable_variables, factor) if own else None
                ),
                step=step,
                progress=Progress(metrics.empty(plan.num_classes)),
                averages=Averages(classifier.model.variables, decay) if decay else None,
                loss_scale=LossScale() if self.resolved.arithmetic == "float16" else None,
            )


def check_places(spec: Spec, flags: Sequence[str] = ("data_dir", "run_dir")) -> None:
    """Refuses places that the host of a TPU elsewhere cannot see; nothing is started for that.

    A TPU that goes by a name or an address is another machine, which reads the data and the
    checkpoints itself.

    Args:
        spec: as asked for.
        flags: the places that matter.

    Raises:
        RequestError: the run or its data are on this machine.
    """
    tpu = spec.devices.tpu
    host = tpu.removeprefix("grpc://").partition(":")[0]
    if not tpu or tpu == "local" or host in _THIS_MACHINE:
        return
    places = [(flag, spec.flat()[flag]) for flag in flags]
    for flag, place in (*places, *(("extra_data_dirs", one) for one in spec.data.further)):
        if "://" not in place:
            raise RequestError(
                f"--{flag}={place}: is on this machine, where --tpu={tpu} cannot see it: give a "
                "folder on gs://, or run on the TPU's own machine with --tpu=local"
            )
