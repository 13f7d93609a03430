"""What to measure, how long, and against what."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from flowers_tpu.options import Options, knob

MEASURES = ("step", "input", "loop", "evaluation", "memory")
ON_REQUEST = ("workers",)  # and only then
PRECISIONS = ("float32", "bfloat16", "float16")
SWEEPS = ("replicas_sweep", "precision_sweep", "image_size_sweep", "batch_sweep")
# What there is to measure against, and which measures do.
SIDES = {
    "keras_fit": ("step", "loop"),
    "notebook": ("input", "loop", "memory"),
    "torch": ("step",),
}


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions(Options):
    """What to measure, how long, against what, and where the results go."""

    topic: ClassVar[str] = "Benchmark"

    measure: str = knob(
        ",".join(MEASURES),
        "What to measure: step (training and forward passes on data already on the device), input "
        "(alone), loop (end to end), evaluation (of a whole split), memory (of a process, which "
        "writes --many_photos to a temporary folder); on request workers (steps of two local ones, "
        "and what they exchange). Every replica takes part in every step: "
        "steps/s per replica are the steps/s, and images/s per replica the images/s over the "
        "replicas.",
    )
    against: str = knob(
        "",
        "What to measure it against in the same rounds: keras_fit (compile and fit of the same "
        "model; in step and loop), notebook (the Kaggle notebook's input, and its fit; in input, "
        "loop and memory), torch (vgg16 or mobilenet_v2 of torchvision; in step).",
    )
    accelerator: bool = knob(
        False,
        "Measure, in place of --measure, what a GPU or TPU does with this program: three networks "
        "with and without XLA, in two precisions, against fit; whether the input limits; the same "
        "losses as on the CPU; a resume bit for bit. See docs/gpu.md.",
    )
    torch_python: str = knob(
        "python", "Python interpreter of an environment that has PyTorch and torchvision."
    )
    rounds: int = knob(5, "Rounds in which all sides take turns, after a warm-up.", least=1)
    seconds_per_round: float = knob(
        3.0, "Length of a side's turn.", unit="seconds", above=0, below=3600
    )
    replicas_sweep: str = knob(
        "",
        "Numbers of CPU replicas to compare, as 1,2,4,8: with the same batch on each replica, then "
        "with the same in total.",
    )
    precision_sweep: str = knob(
        "", "Precisions to compare with the first one, as float32,bfloat16."
    )
    image_size_sweep: str = knob("", "Image sizes to compare, pixels.")
    batch_sweep: str = knob("", "Photos per step and replica to compare.")
    many_photos: int = knob(
        12753,
        "Photos that the input's memory is measured on: those of --data_dir repeated in a "
        "temporary folder. The default is the competition's number.",
        least=1,
    )
    output_dir: str = knob(
        "",
        "Folder for the results; empty: runs/benchmark-<flagfile's name>. What an earlier "
        "benchmark wrote there is replaced.",
    )
    compare_to: str = knob(
        "", "The benchmark.json of an earlier benchmark, to print ratios against."
    )

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        lists = (
            ("measure", self.measures, MEASURES + ON_REQUEST),
            ("against", self.sides, tuple(SIDES)),
            ("precision_sweep", self.precisions, PRECISIONS),
        )
        for flag, items, known in lists:
            for item in items:
                if item not in known:
                    yield f"--{flag}={item}: is unknown; there are: {', '.join(known)}"
        for flag in ("replicas_sweep", "image_size_sweep", "batch_sweep"):
            text = getattr(self, flag)
            for item in _items(text):
                if not item.isdecimal() or int(item) < 1:
                    yield (
                        f"--{flag}={text}: expected whole numbers above 0 with commas between; "
                        f"found {item}"
                    )
        if self.accelerator and (self.sides or self.sweeps):
            yield (
                "--accelerator measures parts of its own; leave --against and the sweeps out, or "
                "measure them without it"
            )
        if not (self.measures or self.sweeps or self.accelerator):
            yield f"--measure: names nothing; there are: {', '.join(MEASURES)}"
        for side in self.sides:
            if not set(SIDES[side]) & set(self.measures):
                yield (
                    f"--against={side}: is not met in --measure={self.measure}, but in "
                    f"{', '.join(SIDES[side])}; add one of these, or leave it out"
                )

    @property
    def measures(self) -> list[str]:
        """What to measure."""
        return [] if self.accelerator else _items(self.measure)

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

    def numbers(self, flag: str) -> list[int]:
        """Returns the numbers of a sweep, in order."""
        return sorted({int(item) for item in _items(getattr(self, flag))})


def _items(text: str) -> list[str]:
    return list(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))
