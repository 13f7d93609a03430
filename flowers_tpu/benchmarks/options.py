"""The benchmark's own flags."""

import dataclasses

from flowers_tpu.benchmarks import peaks
from flowers_tpu.config import knob
from flowers_tpu.errors import RequestError

MEASURES = ("step", "input", "loop", "evaluation", "startup", "checkpoints", "memory", "resume")
PRECISIONS = ("float32", "bfloat16")
SWEEPS = ("replicas_sweep", "precision_sweep", "image_size_sweep", "batch_sweep")
# What there is to measure against, and which measures do.
SIDES = {
    "keras_fit": ("step", "loop"),
    "notebook": ("input", "loop", "memory"),
    "torch": ("step",),
}
_DEFAULT = MEASURES[:-1]  # `resume` is of interest where the order of the photos is worked on


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure, how long, against what, and where the results go."""

    measure: str = knob(
        ",".join(_DEFAULT),
        "Benchmark",
        "What to measure: step (training and forward passes on data already on the device), input "
        "(alone), loop (end to end), evaluation (of a whole split), startup (of scripts/train.py, "
        "up to its first step), checkpoints, memory (of a process), resume (time to the first "
        "batch at both ends of an epoch). Every replica takes part in every step: steps/s per "
        "replica are the steps/s, and images/s per replica the images/s over the replicas. "
        "memory and resume write --many_photos to a temporary folder.",
    )
    against: str = knob(
        "",
        "Benchmark",
        "What to measure it against in the same rounds: keras_fit (compile and fit of the same "
        "model; in step and loop), notebook (the Kaggle notebook's input, and its fit; in input, "
        "loop and memory), torch (the same network in PyTorch; in step).",
    )
    torch_python: str = knob(
        "python", "Benchmark", "Python interpreter of an environment that has PyTorch."
    )
    rounds: int = knob(5, "Benchmark", "Rounds in which all sides take turns, after a warm-up.")
    seconds_per_round: float = knob(3.0, "Benchmark", "Length of a side's turn, seconds.")
    replicas_sweep: str = knob(
        "",
        "Benchmark",
        "Numbers of CPU replicas to compare, as 1,2,4,8: with the same batch on each replica, then "
        "with the same in total.",
    )
    precision_sweep: str = knob(
        "", "Benchmark", "Precisions to compare with the first one, as float32,bfloat16."
    )
    image_size_sweep: str = knob("", "Benchmark", "Image sizes to compare, pixels.")
    batch_sweep: str = knob("", "Benchmark", "Photos per step and replica to compare.")
    accelerator: str = knob(
        "",
        "Benchmark",
        "The TPU, as v5e or v3-8, to work out the fraction of its peak; empty: as the environment "
        "names it.",
    )
    many_photos: int = knob(
        12753,
        "Benchmark",
        "Photos of the epoch that the input's memory, and resume, are measured on: those of "
        "--data_dir repeated in a temporary folder. The default is the competition's number.",
    )
    output_dir: str = knob(
        "",
        "Benchmark",
        "Folder for the results; empty: runs/benchmark-<flagfile's name>. What an earlier "
        "benchmark wrote there is replaced.",
    )
    compare_to: str = knob(
        "", "Benchmark", "The benchmark.json of an earlier benchmark, to print ratios against."
    )

    def __post_init__(self) -> None:
        _check_list("measure", self.measures, MEASURES)
        _check_list("against", self.sides, tuple(SIDES))
        _check_list("precision_sweep", self.precisions, PRECISIONS)
        for flag in ("replicas_sweep", "image_size_sweep", "batch_sweep"):
            numbers(flag, getattr(self, flag))
        if not self.measures and not self.sweeps:
            raise RequestError(f"--measure: names nothing; there are: {', '.join(MEASURES)}")
        for side in self.sides:
            if not set(SIDES[side]) & set(self.measures):
                raise RequestError(
                    f"--against={side}: is not met in --measure={self.measure}, but in "
                    f"{', '.join(SIDES[side])}; add one of these, or leave it out"
                )
        if self.accelerator:
            peaks.of_tpu(self.accelerator)
        for flag in ("rounds", "many_photos"):
            if getattr(self, flag) < 1:
                raise RequestError(f"--{flag}={getattr(self, flag)}: must be at least 1")
        if not 0 < self.seconds_per_round < 3600:
            raise RequestError(
                f"--seconds_per_round={self.seconds_per_round}: must be above 0 and below 3600"
            )

    @property
    def measures(self) -> list[str]:
        """What to measure."""
        return _items(self.measure)

    @property
    def sweeps(self) -> list[str]:
        """Flags of the sweeps that are asked for."""
        return [flag for flag in SWEEPS if _items(getattr(self, flag))]

    @property
    def precisions(self) -> list[str]:
        """Precisions to compare."""
        return _items(self.precision_sweep)

    @property
    def sides(self) -> list[str]:
        """What to measure it against."""
        return _items(self.against)


def numbers(flag: str, text: str) -> list[int]:
    """Returns the numbers of a sweep, in order.

    Raises:
        RequestError: one is not a whole number above 0.
    """
    for item in _items(text):
        if not item.isdecimal() or int(item) < 1:
            raise RequestError(
                f"--{flag}={text}: expected whole numbers above 0 with commas between; found {item}"
            )
    return sorted({int(item) for item in _items(text)})


def _items(text: str) -> list[str]:
    return list(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def _check_list(flag: str, items: list[str], known: tuple[str, ...]) -> None:
    for item in items:
        if item not in known:
            raise RequestError(f"--{flag}={item}: is unknown; there are: {', '.join(known)}")
