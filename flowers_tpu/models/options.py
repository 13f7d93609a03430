"""Which network, from which weights."""

import dataclasses
from typing import ClassVar

from flowers_tpu.options import Options, knob


@dataclasses.dataclass(frozen=True)
class ModelOptions(Options):
    """Which network, from which weights."""

    topic: ClassVar[str] = "Model"

    backbone: str = knob(
        "vgg16",
        "Network below the head; an unknown name prints the known ones. Or the path of a "
        "functional Keras 2 model without top (model.save('NAME.h5')), which the run keeps a copy "
        "of.",
    )
    preprocessing: str = knob(
        "auto",
        "What is done to the pixels before the network, as Keras' applications have it; none: it "
        "takes 0 to 255; auto: what the network of that name wants, none for a file.",
        choices=("auto", "tf", "torch", "caffe", "none"),
    )
    alpha: float = knob(1.0, "Width multiplier of the MobileNets.", above=0)
    weights: str = knob(
        "imagenet",
        "Backbone's initial weights: 'imagenet' (downloaded, or those in the file of "
        "--backbone=PATH), 'none' (random), or a Keras HDF5 file.",
    )
    train_from: str = knob(
        "",
        "First layer of the backbone that fine-tuning trains, by its name or the beginning of "
        "that, such as block_13; those before it stay as they are, their batch normalization "
        "too. Empty: all layers.",
    )
    dropout: float = knob(
        0.0, "Fraction of the features dropped before the head.", least=0, below=1
    )
    batch_norm: str = knob(
        "per_replica",
        "Batch normalization in fine-tuning: statistics of each replica's batch, of the global "
        "batch, or the frozen pretrained ones.",
        choices=("per_replica", "synchronized", "frozen"),
    )
