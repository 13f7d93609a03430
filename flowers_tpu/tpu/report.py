"""What a person and a program read of a check: a table and JSON."""

import json
import math
from collections.abc import Sequence

from flowers_tpu.system.tpu_slices import GIB, Slice
from flowers_tpu.tpu.data_facts import InputRate
from flowers_tpu.tpu.outcome import Checked, Outcome

NOTE = (
    "The compiler's figures are what libtpu says of the programs it made; the bounds follow from\n"
    "them and the chips' published peaks. The bytes moved are the compiler's count, which may\n"
    "include traffic that stays on the chip: the bound by memory is an estimate, no strict one.\n"
    "With --on_nan=skip training runs gradients and update as two programs, not as one.\n"
    "Nothing was measured on a TPU: expect real steps to take longer."
)
_LABEL_WIDTH, _WIDTH = 38, 14


def table(checked: Checked, rate: InputRate) -> list[str]:
    """Returns the lines of the table of one slice: a column per step.

    Args:
        checked: the slice and the outcomes of its steps.
        rate: what the input of one of its hosts delivers.
    """
    outcomes = checked.outcomes
    lines = [_heading(checked.slice_), _row("", [outcome.step.name for outcome in outcomes])]
    lines.append("  the compiler's figures, one replica")
    lines.append(_row("compiles and fits", [_runs(outcome) for outcome in outcomes]))
    lines.append(_row("memory needed, GiB", [_needed(outcome) for outcome in outcomes]))
    lines += [_figures(label, figure, outcomes) for label, figure in _COMPILERS]
    lines.append("  bounds worked out from them (not measured)")
    lines += [_figures(label, figure, outcomes) for label, figure in _BOUNDS]
    lines.append(_row("  it delivers, photos/s", [_input(outcome, rate) for outcome in outcomes]))
    lines += [f"  {o.step.name}: {o.problem}" for o in outcomes if o.problem]
    return lines


def as_json(checked: Sequence[Checked], rate: InputRate, about: dict) -> str:
    """Returns everything as JSON: sizes in bytes, times in seconds, rates per second.

    Args:
        checked: the slices that are done.
        rate: what the input of one host delivers.
        about: what else is to stand there.
    """
    content = {
        "note": NOTE,
        **about,
        "input": {"images_per_second_per_host": rate.images_per_second, "origin": rate.origin},
        "slices": [_slice(each, rate) for each in checked],
    }
    return json.dumps(content, indent=1) + "\n"


def _slice(checked: Checked, rate: InputRate) -> dict:
    slice_, recipe = checked.slice_, checked.recipe
    return {
        "topology": slice_.topology,
        "accelerator": slice_.accelerator,
        "replicas": slice_.replicas,
        "hosts": slice_.hosts,
        "flops_per_second_per_replica": slice_.flops,
        "hbm_per_replica": slice_.hbm,
        "hbm_available_per_replica": slice_.available,
        "hbm_bytes_per_second_per_replica": slice_.hbm_bandwidth,
        "interconnect_bytes_per_second_per_chip": slice_.generation.interconnect,
        "sources": slice_.generation.sources,
        "flags": recipe.spec.exactly(recipe.resolved).flat(),
        "largest_batch_size_per_replica": checked.largest_batch,
        "steps": [_step(outcome, rate) for outcome in checked.outcomes],
    }


def _step(outcome: Outcome, rate: InputRate) -> dict:
    content = {
        "step": outcome.step.name,
        "runs": outcome.problem is None,
        "batch_size_per_replica": outcome.batch_size,
    }
    if outcome.problem:
        problem = {**vars(outcome.problem)}
        if math.isinf(problem["needed"]):
            del problem["needed"]
        content["problem"] = problem
    compiled, lowered, roofline = outcome.compiled, outcome.lowered, outcome.roofline
    if not (compiled and lowered):
        return content
    content |= {
        "compiler": {
            "seconds": compiled.seconds,
            "memory": compiled.memory,
            "flops": compiled.flops,
            "flops_per_image": compiled.flops / outcome.batch_size,
            "bytes_accessed": compiled.bytes_accessed,
            "bytes_accessed_per_image": compiled.bytes_accessed / outcome.batch_size,
        },
        "memory": {
            "needed": outcome.needed,
            "of_it_state_this_step_leaves_alone": lowered.other_state_bytes,
            "headroom": outcome.headroom,
        },
        "bounds": {"all_reduce_bytes": lowered.all_reduce_bytes, **vars(roofline)},
    }
    if outcome.step.training:
        part = _part_delivered(outcome, rate)
        content["input"] = {
            "images_per_second_needed_per_host": _needed_per_host(outcome),
            "part_delivered": part,
            "enough": part and part >= 1,
        }
    return content


def _heading(slice_: Slice) -> str:
    device = "chip" if slice_.generation.replicas == 1 else "core"
    return (
        f"{slice_.topology} ({slice_.accelerator}): {_count(slice_.replicas, 'replica')}, "
        f"{_count(slice_.hosts, 'host')}; a {device} has {slice_.hbm / GIB:.0f} GiB of memory, "
        f"{_gib(slice_.available)} of them for the program, {slice_.flops / 1e12:.3g} TFLOP/s and "
        f"{slice_.hbm_bandwidth / 1e9:.0f} GB/s"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"


def _row(label: str, values: Sequence[str]) -> str:
    return f"{'    ' + label:<{_LABEL_WIDTH}}{''.join(f'{value:>{_WIDTH}}' for value in values)}"


def _figures(label: str, figure, outcomes: Sequence[Outcome]) -> str:
    """The row of a figure that there is only of what was compiled."""
    return _row(label, [figure(outcome) if outcome.compiled else "-" for outcome in outcomes])


def _runs(outcome: Outcome) -> str:
    return outcome.problem.reason if outcome.problem else "yes"


def _needed(outcome: Outcome) -> str:
    return "-" if math.isinf(outcome.needed) else _gib(outcome.needed)


def _needed_per_host(outcome: Outcome) -> float:
    """Photos/s that each host must feed for the most that the slice can do; of what compiles."""
    assert outcome.roofline is not None
    return outcome.roofline.images_per_second / outcome.slice_.hosts


def _part_delivered(outcome: Outcome, rate: InputRate) -> float | None:
    """What the input delivers of that; None if not known."""
    if rate.images_per_second is None:
        return None
    return rate.images_per_second / _needed_per_host(outcome)


def _input(outcome: Outcome, rate: InputRate) -> str:
    """Whether the input keeps up; known of training alone."""
    if not (outcome.step.training and outcome.compiled):
        return "-"
    part = _part_delivered(outcome, rate)
    if part is None:
        return "not measured"
    return f"{rate.images_per_second:,.0f} ({'enough' if part >= 1 else f'{part:.0%}'})"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


_COMPILERS = (
    ("  arguments", lambda o: _gib(o.compiled.memory["arguments"])),
    ("  temporaries", lambda o: _gib(o.compiled.memory["temporaries"])),
    ("  code", lambda o: _gib(o.compiled.memory["code"])),
    ("  state of the run it leaves alone", lambda o: _gib(o.lowered.other_state_bytes)),
    ("memory left, GiB", lambda o: _gib(o.headroom)),
    ("compile time, s", lambda o: f"{o.compiled.seconds:.0f}"),
    ("photos a step", lambda o: f"{o.batch_size}"),
    ("TFLOP a step", lambda o: f"{o.compiled.flops / 1e12:.3g}"),
    ("GFLOP a photo", lambda o: f"{o.compiled.flops / o.batch_size / 1e9:.3g}"),
    ("GB moved a step", lambda o: f"{o.compiled.bytes_accessed / 1e9:.3g}"),
    ("MB moved a photo", lambda o: f"{o.compiled.bytes_accessed / o.batch_size / 1e6:.4g}"),
)
_BOUNDS = (
    ("FLOP per byte moved", lambda o: f"{o.roofline.intensity:.0f}"),
    ("  where arithmetic begins to limit", lambda o: f"{o.roofline.ridge:.0f}"),
    ("arithmetic, least ms", lambda o: f"{o.roofline.compute_seconds * 1e3:.3g}"),
    ("memory, estimated least ms", lambda o: f"{o.roofline.memory_seconds * 1e3:.3g}"),
    ("sum of gradients, MB", lambda o: f"{o.lowered.all_reduce_bytes / 1e6:.3g}"),
    ("  on the interconnect, least ms", lambda o: f"{o.roofline.all_reduce_seconds * 1e3:.3g}"),
    ("limited by", lambda o: o.roofline.limit),
    ("least ms a step", lambda o: f"{o.roofline.seconds * 1e3:.3g}"),
    ("most photos/s, a replica", lambda o: f"{o.roofline.images_per_second_per_replica:,.0f}"),
    ("most photos/s, the slice", lambda o: f"{o.roofline.images_per_second:,.0f}"),
    ("input for that, MB/s of pixels", lambda o: f"{o.roofline.input_bytes_per_second / 1e6:,.0f}"),
    ("  photos/s of each host", lambda o: f"{_needed_per_host(o):,.0f}"),
)
