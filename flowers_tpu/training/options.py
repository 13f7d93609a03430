"""How long and how fast to train, what is minimized and by what."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from flowers_tpu.options import Options, knob

# Schedules in which the rate of a step is the same however many epochs follow.
INDEPENDENT_OF_EPOCHS = ("ramp_decay", "constant")


@dataclasses.dataclass(frozen=True)
class ScheduleOptions(Options):
    """How long each stage is, and how its learning rate moves."""

    topic: ClassVar[str] = "Schedule"

    warmup_epochs: int = knob(
        3, "Epochs of the head alone, the backbone frozen.", unit="epochs", least=0
    )
    warmup_on: str = knob(
        "photos",
        "What the head is trained on in the warm-up: photos, augmented as ever; or features: those "
        "of each photo and its mirror image, worked out once and kept in memory, which takes "
        "seconds in place of minutes.",
        choices=("photos", "features"),
    )
    warmup_learning_rate: float = knob(
        0.0001, "Rate of the warm-up for a global batch of 16; scaled linearly with it.", least=0
    )
    epochs: int = knob(
        20,
        "Most epochs of fine-tuning all layers. May change on the same run with a schedule that "
        "does not depend on it: ramp_decay or constant.",
        unit="epochs",
        least=0,
    )
    learning_rate: float = knob(
        3e-05, "Peak rate of fine-tuning for a global batch of 16; scaled linearly.", least=0
    )
    backbone_rate: float = knob(
        1.0,
        "Factor of the rate of the backbone in fine-tuning; the head keeps the rate itself.",
        above=0,
    )
    lr_schedule: str = knob(
        "ramp_decay",
        "How the rate moves: ramp_decay: ramp, sustain, exponential decay; cosine: ramp, then a "
        "half cosine to --lr_min; constant.",
        choices=("ramp_decay", "cosine", "constant"),
    )
    lr_granularity: str = knob(
        "epoch",
        "Whether the rate moves at each epoch (a staircase) or at each step.",
        choices=("epoch", "step"),
    )
    lr_start: float = knob(1e-08, "Rate the ramp begins with; not scaled.", least=0)
    lr_min: float = knob(1e-06, "Rate the decay tends to; not scaled.", least=0)
    lr_rampup_epochs: float = knob(
        3.0, "Epochs from --lr_start to the peak.", unit="epochs", least=0
    )
    lr_sustain_epochs: float = knob(0.0, "Epochs at the peak (ramp_decay).", unit="epochs", least=0)
    lr_decay: float = knob(0.8, "Factor per epoch of the decay (ramp_decay).", above=0, most=1)

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        if self.total_epochs < 1:
            yield "--warmup_epochs=0 and --epochs=0: nothing to train; use scripts/evaluate.py"
        if self.warmup_on == "features" and not self.warmup_epochs:
            yield "--warmup_on=features and --warmup_epochs=0: there is no warm-up"

    @property
    def total_epochs(self) -> int:
        """Most epochs of both stages."""
        return self.warmup_epochs + self.epochs

    def stage(self, epoch: int) -> str:
        """Returns the stage of an epoch, counted from 0: `warmup` or `finetune`."""
        return "warmup" if epoch < self.warmup_epochs else "finetune"


@dataclasses.dataclass(frozen=True)
class TrainingOptions(Options):
    """What is minimized and by what, and what ends it."""

    topic: ClassVar[str] = "Training"

    optimizer: str = knob(
        "adam",
        "Optimizer; lamb, radam and novograd come from TensorFlow Addons.",
        choices=("sgd", "adam", "adamw", "lamb", "radam", "novograd"),
    )
    momentum: float = knob(0.9, "Nesterov momentum of sgd.", least=0, below=1)
    weight_decay: float = knob(
        0.0, "Decoupled weight decay of adamw, lamb, radam and novograd.", least=0
    )
    l2: float = knob(0.0, "Factor of the squared norm of all kernels, added to the loss.", least=0)
    clip_norm: float = knob(0.0, "Largest global norm of the gradients; 0: not clipped.", least=0)
    label_smoothing: float = knob(
        0.0, "Part of the label spread evenly over all classes.", least=0, below=1
    )
    class_weights: str = knob(
        "none",
        "balanced: weigh examples inversely to the frequency of their class.",
        choices=("none", "balanced"),
    )
    on_nan: str = knob(
        "stop",
        "What to do if loss or gradients of a step are not finite: stop, or skip its update. With "
        "skip each update waits until its gradients are known to be finite.",
        choices=("stop", "skip"),
        free=True,
    )
    accumulate_steps: int = knob(
        1,
        "Parts in which a replica goes through its photos of a step, if all at once do not fit: "
        "--batch_size_per_replica is the photos of a part. Gradients are summed and the weights "
        "updated once, as with the whole.",
        least=1,
    )
    ema_decay: float = knob(
        0.0,
        "Decay of an exponential average of the weights, per update; validation, best weights and "
        "all results are the average's. 0: no average.",
        least=0,
        below=1,
    )
    monitor: str = knob(
        "val_macro_f1",
        "What tells which epoch is best, whose weights are kept, and when to stop early.",
        choices=("val_macro_f1", "val_accuracy", "val_loss"),
        free=True,
    )
    early_stopping_patience: int = knob(
        5,
        "Epochs of fine-tuning without a better value of --monitor; 0: never stop.",
        unit="epochs",
        least=0,
        free=True,
    )
    steps_per_loop: int = knob(
        0,
        "In one compiled call; 0: as many as take about a second.",
        unit="steps",
        free=True,
        least=0,
    )
    seed: int = knob(0, "Seed of everything.", least=0, below=2**31)

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        if self.weight_decay and self.optimizer in ("sgd", "adam"):
            yield (
                f"--weight_decay={self.weight_decay} does not go with --optimizer={self.optimizer};"
                " use --l2, or --optimizer=adamw, lamb, radam or novograd"
            )
