"""What a person and a program get to read of a check: a table and JSON."""

import json
import math
from collections.abc import Sequence

from flowers_tpu.generations import GIB, Slice
from flowers_tpu.tpu.outcome import Outcome

MADE_BY = "flowers_tpu scripts/tpu_check.py"
NOTE = (
    "The compiler's figures are what libtpu says of the programs it made; the bounds follow from\n"
    "them and the chips' published peaks. Nothing was measured on a TPU: real steps take longer."
)
_LABEL_WIDTH, _WIDTH = 38, 14


def table(outcomes: Sequence[Outcome], host_images_per_second: float = 0) -> list[str]:
    """Returns the lines of the table of one slice: a column per step.

    Args:
        outcomes: of the steps on one slice.
        host_images_per_second: what this machine's input delivers; 0 if not known.
    """
    slice_ = outcomes[0].slice_
    lines = [_heading(slice_), _row("", [outcome.step for outcome in outcomes])]
    lines.append("  the compiler's figures, one replica")
    for label, figure in _COMPILERS:
        lines.append(_row(label, [_text(figure, outcome) for outcome in outcomes]))
    lines.append("  bounds worked out from them (not measured)")
    for label, figure in _BOUNDS:
        lines.append(_row(label, [_text(figure, outcome) for outcome in outcomes]))
    lines.append(_row("photos/s the input delivers here", [
        _host(outcome, host_images_per_second) for outcome in outcomes
    ]))  # fmt: skip
    lines += [f"  {o.step}: {o.problem}" for o in outcomes if o.problem]
    return lines


def as_json(outcomes: Sequence[Outcome], about: dict) -> str:
    """Returns everything as JSON: sizes in bytes, times in seconds, rates per second.

    Args:
        outcomes: of all steps on all slices.
        about: what else is to stand there.
    """
    slices = dict.fromkeys(outcome.slice_ for outcome in outcomes)
    content = {
        "made_by": MADE_BY,
        "note": NOTE,
        **about,
        "slices": [
            {
                "topology": slice_.topology,
                "accelerator": slice_.accelerator,
                "replicas": slice_.replicas,
                "flops_per_second_per_replica": slice_.flops,
                "hbm_per_replica": slice_.hbm,
                "hbm_available_per_replica": slice_.generation.available,
                "hbm_bytes_per_second_per_replica": slice_.hbm_bandwidth,
                "interconnect_bytes_per_second_per_chip": slice_.generation.interconnect,
                "sources": slice_.generation.sources,
                "steps": [_step(outcome) for outcome in outcomes if outcome.slice_ == slice_],
            }
            for slice_ in slices
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def _step(outcome: Outcome) -> dict:
    content = {"step": outcome.step, "runs": outcome.problem is None}
    if outcome.problem:
        problem = {**vars(outcome.problem)}
        if math.isinf(problem["needed"]):
            del problem["needed"]
        content["problem"] = problem
    if not outcome.compiled:
        return content
    compiled, lowered, roofline = outcome.compiled, outcome.lowered, outcome.roofline
    return content | {
        "batch_size_per_replica": lowered.batch_size,
        "compiler": {
            "seconds": compiled.seconds,
            "memory": compiled.memory,
            "flops": compiled.flops,
            "flops_per_image": compiled.flops / lowered.batch_size,
            "bytes_accessed": compiled.bytes_accessed,
            "bytes_accessed_per_image": compiled.bytes_accessed / lowered.batch_size,
        },
        "memory": {
            "needed": outcome.needed,
            "of_it_state_this_step_leaves_alone": lowered.other_state_bytes,
            "headroom": outcome.slice_.generation.available - outcome.needed,
        },
        "bounds": {"all_reduce_bytes": lowered.all_reduce_bytes, **vars(roofline)},
    }


def _heading(slice_: Slice) -> str:
    generation = slice_.generation
    device = "chip" if generation.replicas == 1 else "core"
    replicas = f"{slice_.replicas} replica{'s' if slice_.replicas > 1 else ''}"
    return (
        f"{slice_.topology} ({slice_.accelerator}): {replicas}; a {device} has "
        f"{slice_.hbm / GIB:.0f} GiB of memory, {generation.available / GIB:.2f} of them for the "
        f"program, {slice_.flops / 1e12:.3g} TFLOP/s and {slice_.hbm_bandwidth / 1e9:.0f} GB/s"
    )


def _row(label: str, values: Sequence[str]) -> str:
    return f"{'    ' + label:<{_LABEL_WIDTH}}{''.join(f'{value:>{_WIDTH}}' for value in values)}"


def _text(figure, outcome: Outcome) -> str:
    try:
        return figure(outcome)
    except AttributeError:  # nothing was compiled, so there is no such figure
        return "-"


def _host(outcome: Outcome, images_per_second: float) -> str:
    if not images_per_second or not outcome.roofline:
        return "not measured" if outcome.roofline else "-"
    part = images_per_second / outcome.roofline.images_per_second
    return f"{images_per_second:,.0f} ({'enough' if part >= 1 else f'{part:.0%}'})"


def _runs(outcome: Outcome) -> str:
    return outcome.problem.reason if outcome.problem else "yes"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


_COMPILERS = (
    ("compiles and fits", _runs),
    ("compile time, s", lambda o: f"{o.compiled.seconds:.0f}"),
    ("memory needed, GiB", lambda o: "-" if math.isinf(o.needed) else _gib(o.needed)),
    ("  arguments", lambda o: _gib(o.compiled.memory["arguments"])),
    ("  temporaries", lambda o: _gib(o.compiled.memory["temporaries"])),
    ("  code", lambda o: _gib(o.compiled.memory["code"])),
    ("  state of the run it leaves alone", lambda o: _gib(o.lowered.other_state_bytes)),
    ("memory left, GiB", lambda o: _gib(o.slice_.generation.available - o.compiled.needed
                                        - o.lowered.other_state_bytes)),
    ("photos a step", lambda o: f"{o.lowered.batch_size}"),
    ("TFLOP a step", lambda o: f"{o.compiled.flops / 1e12:.3g}"),
    ("GFLOP a photo", lambda o: f"{o.compiled.flops / o.lowered.batch_size / 1e9:.3g}"),
    ("GB moved a step", lambda o: f"{o.compiled.bytes_accessed / 1e9:.3g}"),
    ("MB moved a photo", lambda o: f"{o.compiled.bytes_accessed / o.lowered.batch_size / 1e6:.4g}"),
)  # fmt: skip
_BOUNDS = (
    ("FLOP per byte moved", lambda o: f"{o.roofline.intensity:.0f}"),
    ("  where arithmetic begins to limit", lambda o: f"{o.roofline.ridge:.0f}"),
    ("arithmetic, least ms", lambda o: f"{o.roofline.compute_seconds * 1e3:.3g}"),
    ("memory, least ms", lambda o: f"{o.roofline.memory_seconds * 1e3:.3g}"),
    ("sum of gradients, MB", lambda o: f"{o.lowered.all_reduce_bytes / 1e6:.3g}"),
    ("  on the interconnect, least ms", lambda o: f"{o.roofline.all_reduce_seconds * 1e3:.3g}"),
    ("limited by", lambda o: o.roofline.limit),
    ("least ms a step", lambda o: f"{o.roofline.seconds * 1e3:.3g}"),
    ("most photos/s, a replica", lambda o: f"{o.roofline.images_per_second_per_replica:,.0f}"),
    ("most photos/s, the slice", lambda o: f"{o.roofline.images_per_second:,.0f}"),
    ("input for that, MB/s of pixels", lambda o: f"{o.roofline.input_bytes_per_second / 1e6:,.0f}"),
)
