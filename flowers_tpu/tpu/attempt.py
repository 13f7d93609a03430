"""Tries the steps of a run on a slice: with its own batch, and with others for the largest."""

import dataclasses
import math
import time

from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.system import terminal
from flowers_tpu.system.tpu_slices import GIB, Slice
from flowers_tpu.tpu import compiler, diagnosis
from flowers_tpu.tpu.batch_search import largest_batch
from flowers_tpu.tpu.compiler import CompileError, CompileTimeoutError
from flowers_tpu.tpu.diagnosis import Problem, StepError
from flowers_tpu.tpu.lowering import Step, Steps
from flowers_tpu.tpu.outcome import Checked, Outcome


def check_slice(steps: Steps, slice_: Slice, recipe: Recipe, minutes: float) -> Checked:
    """Compiles every step of a run for a slice.

    Args:
        steps: of the run.
        slice_: what to compile for.
        recipe: of the run on the slice.
        minutes: most time for one compilation.
    """
    batch_size = recipe.photos_per_replica
    outcomes = [_try(steps, step, batch_size, slice_, minutes) for step in steps.steps]
    return Checked(slice_, recipe, outcomes)


def find_batch(steps: Steps, checked: Checked, minutes: float) -> Checked:
    """Searches the largest batch with which every step fits, and prints its flag.

    Returns:
        The same slice with that batch and its outcomes.
    """
    slice_, recipe = checked.slice_, checked.recipe
    for outcome in checked.outcomes:
        if outcome.problem and outcome.problem.reason != "memory":
            terminal.say(
                f"{slice_.topology}: --find_batch: nothing to search, as {outcome.step.name} does "
                f"not run for another reason than memory ({outcome.problem.reason})"
            )
            return checked
    most = max(recipe.photos_per_replica, steps.facts.training_photos // slice_.replicas)
    fits, fails, outcomes = _search(steps, checked, most, minutes)
    flag = f"--batch_size_per_replica={fits}"
    if recipe.spec.data.global_batch_size:
        flag = f"--global_batch_size={fits * slice_.replicas}"
    if fails <= most:
        limit = f"{fails} on a replica {_why_not(outcomes[fails])}"
    elif steps.facts.assumed:
        limit = f"more were not tried, as {steps.facts.training_photos:,} photos are assumed"
    else:
        limit = "the training split has no more photos"
    terminal.say(f"{slice_.topology}: {f'{flag} fits' if fits else 'no batch fits'}; {limit}")
    return dataclasses.replace(
        checked, largest_batch=fits, outcomes=outcomes.get(fits, checked.outcomes)
    )


def _search(
    steps: Steps, checked: Checked, most: int, minutes: float
) -> tuple[int, int, dict[int, list[Outcome]]]:
    """Returns what `largest_batch` does, and what was tried of each batch.

    The step that needs most is tried first, the others only if it fits.
    """
    slice_, first = checked.slice_, checked.recipe.photos_per_replica
    outcomes = {first: checked.outcomes}
    by_need = sorted(checked.outcomes, key=lambda outcome: -outcome.needed)

    def need(batch_size: int) -> float:
        if batch_size not in outcomes:
            tried = {}
            for step in (outcome.step for outcome in by_need):
                tried[step.name] = _try(steps, step, batch_size, slice_, minutes)
                if tried[step.name].problem:
                    break
            outcomes[batch_size] = [tried[s.name] for s in steps.steps if s.name in tried]
        needed = max(outcome.needed for outcome in outcomes[batch_size])
        if any(outcome.problem for outcome in outcomes[batch_size]):
            # The compiler's figures are rounded: by them, what does not fit may seem to.
            needed = max(needed, math.nextafter(slice_.available, math.inf))
        return needed

    return *largest_batch(need, slice_.available, first=first, most=most), outcomes


def _try(steps: Steps, step: Step, batch_size: int, slice_: Slice, minutes: float) -> Outcome:
    """Lowers and compiles a step; says how it went."""
    label = f"{slice_.topology} {step.name}, {batch_size} photos"
    lowered = compiled = problem = None
    begin = time.monotonic()
    with terminal.bar(1, label, "program") as bar:

        def show_time():
            bar.set_postfix(seconds=f"{time.monotonic() - begin:.0f}")
            bar.update(0)

        try:
            lowered = steps.lower(step, batch_size)
            compiled = compiler.compile_for(
                slice_, lowered.module, seconds=minutes * 60, on_wait=show_time
            )
        except StepError as error:
            problem = error.problem
        except CompileError as error:
            assert lowered is not None
            problem = diagnosis.of_compilation(str(error), lowered.source_of)
        except CompileTimeoutError:
            problem = Problem(
                "timeout", f"not compiled within --compile_minutes={minutes:g}", step.name
            )
    outcome = Outcome(slice_, step, batch_size, lowered, compiled, problem)
    if compiled and outcome.headroom < 0:
        problem = diagnosis.too_large(outcome.needed, slice_.available)
        outcome = dataclasses.replace(outcome, problem=problem)
    gist = problem or f"{outcome.needed / GIB:.2f} of {slice_.available / GIB:.2f} GiB"
    terminal.note(f"{label}: {gist} ({time.monotonic() - begin:.0f} s)")
    return outcome


def _why_not(outcomes: list[Outcome]) -> str:
    """What is the matter with a batch, of which one step was found not to run."""
    problem = next(outcome.problem for outcome in outcomes if outcome.problem)
    what = {"memory": "does not fit", "timeout": "timed out"}.get(problem.reason, "failed")
    return f"{what} ({problem.text})"
