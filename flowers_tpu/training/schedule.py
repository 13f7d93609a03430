"""Learning rates as arrays: one rate for every step of a stage, known before it begins."""

import numpy as np

from flowers_tpu.training.options import ScheduleOptions

REFERENCE_BATCH = 16  # the global batch for which rates are given


def scaled(rate: float, global_batch_size: int) -> float:
    """Scales a rate linearly with the global batch (Goyal et al., 2017, arXiv:1706.02677).

    With the notebook's 16 photos per replica this is its `rate * replicas`.
    """
    return rate * global_batch_size / REFERENCE_BATCH


def learning_rates(
    options: ScheduleOptions, steps_per_epoch: int, global_batch_size: int
) -> np.ndarray:
    """Returns the rate of every step of a run, warm-up first, `[steps]` float32.

    Args:
        options: how long each stage is, and how its rate moves.
        steps_per_epoch: of the run.
        global_batch_size: photos of a step, by which rates are scaled.
    """
    warmup_rate = scaled(options.warmup_learning_rate, global_batch_size)
    warmup = constant(warmup_rate, options.warmup_epochs * steps_per_epoch)
    peak = scaled(options.learning_rate, global_batch_size)
    epochs = times(options.epochs, steps_per_epoch, options.lr_granularity)
    ramp = {
        "peak": peak,
        "start": options.lr_start,
        "minimum": options.lr_min,
        "rampup_epochs": options.lr_rampup_epochs,
    }
    if options.lr_schedule == "ramp_decay":
        finetune = ramp_decay(
            epochs, **ramp, sustain_epochs=options.lr_sustain_epochs, decay=options.lr_decay
        )
    elif options.lr_schedule == "cosine":
        finetune = cosine(epochs, **ramp, total_epochs=options.epochs)
    else:
        finetune = constant(peak, len(epochs))
    return np.concatenate([warmup, finetune])


def constant(rate: float, num_steps: int) -> np.ndarray:
    """Returns the same rate for every step, `[num_steps]` float32."""
    return np.full(num_steps, rate, np.float32)


def ramp_decay(
    epochs: np.ndarray,
    *,
    peak: float,
    start: float,
    minimum: float,
    rampup_epochs: float,
    sustain_epochs: float,
    decay: float,
) -> np.ndarray:
    """The notebook's schedule: a linear ramp, a plateau, then exponential decay.

    Args:
        epochs: times since the stage began, in epochs (whole numbers for a staircase).
        peak: rate at the end of the ramp.
        start: rate at time 0.
        minimum: what the decay tends to.
        rampup_epochs: length of the ramp.
        sustain_epochs: length of the plateau.
        decay: factor per epoch of the distance to `minimum`.

    Returns:
        The rates, shaped as `epochs`, float32.
    """
    ramp = _ramp(epochs, start, peak, rampup_epochs)
    since_plateau = np.maximum(epochs - rampup_epochs - sustain_epochs, 0)
    decayed = (peak - minimum) * decay**since_plateau + minimum
    return np.where(epochs < rampup_epochs, ramp, decayed).astype(np.float32)


def cosine(
    epochs: np.ndarray,
    *,
    peak: float,
    start: float,
    minimum: float,
    rampup_epochs: float,
    total_epochs: float,
) -> np.ndarray:
    """A linear ramp, then half a cosine down to `minimum` (Loshchilov & Hutter, arXiv:1608.03983).

    Args and result are those of `ramp_decay`; `minimum` is reached at `total_epochs`.
    """
    ramp = _ramp(epochs, start, peak, rampup_epochs)
    length = max(total_epochs - rampup_epochs, 1e-9)
    progress = np.clip((epochs - rampup_epochs) / length, 0, 1)
    decayed = minimum + (peak - minimum) * 0.5 * (1 + np.cos(np.pi * progress))
    return np.where(epochs < rampup_epochs, ramp, decayed).astype(np.float32)


def times(num_epochs: int, steps_per_epoch: int, granularity: str) -> np.ndarray:
    """Returns the time of every step in epochs, `[num_epochs * steps_per_epoch]` float64.

    Args:
        num_epochs: epochs of the stage.
        steps_per_epoch: steps of one epoch.
        granularity: `epoch` rounds down to whole epochs, a staircase; `step` does not.
    """
    steps = np.arange(num_epochs * steps_per_epoch)
    return steps // steps_per_epoch * 1.0 if granularity == "epoch" else steps / steps_per_epoch


def _ramp(epochs: np.ndarray, start: float, peak: float, rampup_epochs: float) -> np.ndarray:
    return start + (peak - start) * epochs / max(rampup_epochs, 1e-9)
