"""Run folders that look like those of finished runs, without any training."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from flowers_tpu.data.splits import Split
from flowers_tpu.runs.data import Data, record_of
from flowers_tpu.runs.folder import RunFolder
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.results import Trained, predict_test, score_splits
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.devices import one_cpu_replica

SIZE = 32
# The best epoch of fine-tuning is the third of all.
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3, 4],
        "stage": ["warmup", "finetune", "finetune", "finetune"],
        "step": [3, 6, 9, 12],
        "learning_rate": [1e-3, 2e-3, 1e-3, 5e-4],
        **{f"{of}loss": [2.0, 1.5, 1.25, 1.5] for of in ("", "val_")},
        **{f"{of}accuracy": [0.25, 0.5, 0.75, 0.75] for of in ("", "val_")},
        **{f"{of}top5_accuracy": [0.5, 0.75, 1.0, 1.0] for of in ("", "val_")},
        **{f"{of}macro_f1": [0.125, 0.375, 0.625, 0.5] for of in ("", "val_")},
        "skipped_steps": 0,
        "kept": [False, True, True, False],
    }
)


class FinishedRun(NamedTuple):
    """A run folder, the recipe it was made by, and the splits of its data."""

    folder: RunFolder
    recipe: Recipe
    splits: dict[str, Split]


class _Pretended(Trained):
    """Gives the outputs of a model that takes every fourth photo for one of the class before."""

    def logits(self, split, signals):
        num_classes, numbers = self.data.num_classes, np.arange(split.size)
        labels = split.labels if split.labels is not None else numbers % num_classes
        outputs = np.zeros((split.size, num_classes), np.float32)
        taken_for = np.where(numbers % 4 == 0, (labels - 1) % num_classes, labels)
        outputs[numbers, taken_for] = 1 + numbers / split.size
        return outputs


def score(folder: RunFolder, data: Data) -> None:
    """Writes the scores, and their tables, of a model on training and validation photos."""
    folder.write_json(
        "scores.json", score_splits(_Pretended(folder, folder, data, None, None), None)
    )


def write_run(path, data_dir, **flags) -> FinishedRun:
    """Writes a finished run on a data set of photos of 32 px."""
    values = {"data_dir": str(data_dir), "run_dir": str(path), "image_size": SIZE}
    values |= {"backbone": "small_cnn", "weights": "none", "warmup_epochs": 1, "epochs": 3}
    recipe = Recipe.on(one_cpu_replica(), Spec.of(**values | flags))
    data, folder = recipe.load_data(), RunFolder(str(path))
    about = {"python": "3.11", "packages": {"numpy": "2", "absent": None}}
    folder.begin(recipe.spec, recipe.resolved, about, record_of(data))
    folder.write_table("history.csv", HISTORY)
    timing = {"epoch": HISTORY["epoch"], "train_seconds": 45.0, "val_seconds": 15.0}
    folder.write_table("timing.csv", pd.DataFrame(timing))
    predict_test(_Pretended(folder, folder, data, None, None), None)
    score(folder, data)
    return FinishedRun(folder, recipe, data.splits)
