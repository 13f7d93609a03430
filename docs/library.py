"""The package as a library: a classifier, a distributed dataset, ten steps, a validation.

    python docs/library.py DATA 96

DATA has train/ and val/ with shards (docs/data.md); 96 is the side of the images, in pixels. The
commands in scripts/ do this and everything around it; this is for a loop of one's own.
"""

import sys

import numpy as np
import tensorflow as tf

from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.training import metrics, multistep

STEPS = 10


def main(data_dir: str, image_size: int) -> float:
    """Trains ten steps on two replicas; returns the macro F1 of the validation after them."""
    # What flags say on the command line; the names are the same.
    spec = Spec.of(
        data_dir=data_dir,
        image_size=image_size,
        replicas=2,
        backbone="small_cnn",
        weights="none",
        batch_size_per_replica=8,
        warmup_epochs=0,
        epochs=2,
        learning_rate=1e-3,
        lr_schedule="constant",
    )
    recipe = Recipe.choose(spec)  # a TPU, GPUs or CPUs, with the strategy that belongs to them
    data = recipe.load_data(("train", "val"))  # every record is read once and checked
    plan, feed = recipe.plan(data), Feed(recipe, data.splits)
    state = recipe.state(plan)  # model, optimizers, step: all that a checkpoint holds

    # Both are tf.functions around strategy.run; how many steps a call does is an argument.
    train_steps = multistep.compile_train_steps(
        recipe.strategy, state, "finetune", plan.objective, feed.prepare
    )
    eval_steps = multistep.compile_eval_steps(recipe.strategy, state.classifier.evaluated)

    results = train_steps(iter(feed.train_batches(0, STEPS)), tf.constant(STEPS))
    for number, rows in enumerate(results.outcomes.numpy(), 1):
        print(f"step {number:2}: loss {rows[:, metrics.COLUMNS.index('loss')].mean():.4f}")

    # One row per photo, padding with weight 0: sums, and so scores, are exact.
    batches = iter(feed.eval_batches(data.splits["val"]))
    count = tf.constant(feed.eval_steps(data.splits["val"]))
    outcomes = np.concatenate(eval_steps(batches, count))
    scores = metrics.scores(metrics.added(metrics.empty(data.num_classes), outcomes))
    print(f"validation: {scores}")
    return scores["macro_f1"]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
