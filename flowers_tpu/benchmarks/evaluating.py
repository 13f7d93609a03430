"""Evaluation and prediction of a whole split, its photos read and decoded, as the scripts do it."""

import dataclasses

from flowers_tpu.benchmarks.compute import Work
from flowers_tpu.benchmarks.end_to_end import NoInterruption
from flowers_tpu.benchmarks.rounds import Side, timed
from flowers_tpu.data import pipeline
from flowers_tpu.data.splits import Split
from flowers_tpu.evaluation import predictions
from flowers_tpu.runs import feed
from flowers_tpu.training import calls, multistep


def sides(work: Work, split: Split) -> list[Side]:
    """The two sides; a step of theirs is a pass over the split."""
    config = dataclasses.replace(work.config, cache="none")
    strategy, model = work.strategy, work.state.classifier.model
    batches = feed.eval_batches(config, strategy, split)
    eval_steps = multistep.compile_eval_steps(strategy, model)
    predict_step = multistep.compile_predict_step(strategy, model)

    def evaluate(passes: int) -> None:
        for _ in range(passes):
            calls.evaluate(
                eval_steps,
                feed.iterate(batches),
                pipeline.eval_steps(split.size, config.global_batch_size),
                work.plan.num_classes,
                on_steps=lambda steps: None,
                interruption=NoInterruption(),
            )

    def predict(passes: int) -> None:
        for _ in range(passes):
            predictions.predict(
                predict_step,
                feed.iterate(batches),
                split.size,
                title="predicting",
                interruption=NoInterruption(),
            )

    return [
        Side("evaluation", split.size, lambda: timed(evaluate), run_in=0),
        Side("prediction", split.size, lambda: timed(predict), run_in=0),
    ]
