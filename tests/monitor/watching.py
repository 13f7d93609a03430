"""What a run tells those who watch it, made up."""

import dataclasses

import numpy as np
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.util import tensor_util

from flowers_tpu.monitor.watchers import Epoch
from flowers_tpu.training import metrics
from flowers_tpu.training.calls import Call, Decision, EvalCall
from flowers_tpu.training.options import ScheduleOptions, TrainingOptions
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.steps import Objective


def call(step, steps=1, loss=1.0, images_per_second=64.0) -> Call:
    return Call(
        step, steps, 0.25, loss, 2.0, images_per_second, 1.0, 0.25, False, (), Decision(steps)
    )


def eval_call(steps=1) -> EvalCall:
    return EvalCall(steps, metrics.empty(2), Decision(steps))


def row(epoch, loss=0.5, val_loss=0.5):
    """An epoch of 10 steps."""
    return {
        "epoch": epoch,
        "stage": "finetune",
        "step": 10 * epoch,
        "learning_rate": 0.5 / epoch,
        "loss": loss,
        "accuracy": 0.25 * epoch,
        "val_loss": val_loss,
        "val_accuracy": 0.125 * epoch,
        "skipped_steps": 0,
        "kept": False,
    }


def times(epoch):
    return {
        "epoch": epoch,
        "train_seconds": 2.0,
        "input_seconds": 0.5,
        "train_images_per_second": 100.0 * epoch,
        "val_seconds": 1.0,
        "val_images_per_second": 1000.0 * epoch,
    }


def epoch_of(history, times=None, *, is_best=False, is_last=False, confusion=None) -> Epoch:
    confusion = np.eye(2) if confusion is None else confusion
    return Epoch(history, times or {}, confusion, is_best, is_last)


def make_plan(**changes) -> Plan:
    """An epoch of warm-up and two of fine-tuning, of 10 steps with 4 photos each."""
    training = TrainingOptions()
    plan = Plan(
        ScheduleOptions(warmup_epochs=1, epochs=2),
        training,
        num_classes=2,
        photos_per_step=4,
        steps_per_epoch=10,
        rates=np.zeros(30, np.float32),
        objective=Objective(training, 4, None),
    )
    return dataclasses.replace(plan, **changes)


def shown(folder, split):
    """What TensorBoard shows of a split: {tag: {step: value}}, and that no step is there twice."""
    read = plugin_event_accumulator.EventAccumulator(
        str(folder / split), tensor_size_guidance=dict.fromkeys(("scalars", "images", "text"), 0)
    ).Reload()
    result = {}
    for tag in read.Tags()["tensors"]:
        events = read.Tensors(tag)
        steps = [event.step for event in events]
        assert steps == sorted(set(steps)), (tag, steps)
        values = (tensor_util.make_ndarray(event.tensor_proto) for event in events)
        result[tag] = dict(zip(steps, values, strict=True))
    return result
