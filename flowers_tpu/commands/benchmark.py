"""Measures how fast the program does its job, where the time goes, and how that compares.

    python scripts/benchmark.py --flagfile=scripts/flagfiles/quickstart.flags
    python scripts/benchmark.py --measure=input,memory --data_dir=DATA --image_size=512
    python scripts/benchmark.py --accelerator --rounds=3 --batch_size_per_replica=32

All that is compared takes turns, round by round, in one process; the table has the median of the
rounds and the quartiles, and ratios are worked out round by round. Nothing else should run on the
machine meanwhile. The results also go to benchmark.json and benchmark.csv, anew after each measure;
--compare_to=FILE prints their ratios to those of an earlier benchmark.json.
"""

import dataclasses
import gc
import os
from typing import Any

import tensorflow as tf

from flowers_tpu.benchmarks import measures, results, scaling, table, torch_side
from flowers_tpu.benchmarks.bench import Bench
from flowers_tpu.benchmarks.options import BenchmarkOptions
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.data import records
from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.runs.environment import environment
from flowers_tpu.runs.recipe import Data, Recipe, check_places
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import files, folders, terminal
from flowers_tpu.system.devices import choose_devices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.options import DeviceOptions


def benchmark(given: Spec, options: BenchmarkOptions) -> None:
    """Measures the program on a run's specification, and prints and writes what came of it.

    The files are written anew after each measure: what ends it early costs only the one it is at.
    """
    model = given.model
    check_places(given, ("data_dir",))
    check_backbone(model.backbone, image_size=given.data.image_size, alpha=model.alpha)
    before = table.read_json(options.compare_to) if options.compare_to else None
    run = os.path.basename(os.path.normpath(given.run.run_dir))
    folder = options.output_dir or files.join("runs", f"benchmark-{run}")
    folders.check_usable(folder, "output_dir", folders.BENCHMARK)
    folders.make(folder, "output_dir")
    # Else TensorFlow takes all of a GPU's memory, and none is left for the processes of measures.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if counts := options.numbers("replicas_sweep"):
        # The CPU can be split once only, before anything else asks for devices.
        choose_devices(DeviceOptions(replicas=max(*counts, given.devices.replicas)))
    recipe = Recipe.choose(given)
    scaling.check(recipe, options)
    if "torch" in options.sides:
        torch_side.check(options.torch_python, recipe)
    bench = Bench(recipe, options, load_data(recipe))
    check_data(bench)
    about = about_results(bench)
    print_what_is_measured(recipe, about)
    rows: list[Row] = []
    for measure in measures.chosen(options):
        found = measure(bench)
        for line in table.lines(found):
            terminal.say(line)
        rows += found
        files.write_atomically(files.join(folder, "benchmark.json"), table.as_json(rows, about))
        files.write_atomically(files.join(folder, "benchmark.csv"), table.as_csv(rows, about))
        gc.collect()  # models are full of cycles, and would be there beside the next ones
    if before:
        terminal.say(f"\nCompared with {options.compare_to}:")
        earlier, about_earlier = before
        for line in table.difference_lines(about_earlier, about):
            terminal.say(line)
        for line in table.comparison_lines(results.changes(rows, earlier)):
            terminal.say(line)
    terminal.say(f"\nIn {folder}: benchmark.json, benchmark.csv")


def load_data(recipe: Recipe) -> Data:
    """Returns the training split, and the validation split if there is one."""
    has_val = files.is_dir(files.join(recipe.data_folder(), "val"))
    return recipe.load_data(records.LABELED_SPLITS if has_val else ("train",))


def check_data(bench: Bench) -> None:
    """Raises RequestError if measures would fail on this data set."""
    recipe, options, split = bench.recipe, bench.options, bench.data.splits["train"]
    batch_size, image_size = recipe.resolved.photos_per_step, recipe.spec.data.image_size
    if options.accelerator or {"input", "loop", "memory"} & set(options.measures):
        recipe.plan(bench.data)  # refuses fewer photos than a global batch has
    if "memory" in options.measures and options.many_photos < batch_size:
        raise RequestError(
            f"--many_photos={options.many_photos}: is below the global batch of {batch_size}; give "
            "at least as many"
        )
    if "notebook" in options.sides and split.photo_size != image_size:
        raise RequestError(
            f"--against=notebook: its network sees photos as they are, here of {split.photo_size} "
            f"px, but --image_size={image_size}; use --image_size={split.photo_size}, or photos of "
            "the other size"
        )


def about_results(bench: Bench) -> dict[str, Any]:
    """Returns what is to be known about the results."""
    recipe, options = bench.recipe, bench.options
    about = {
        "environment": environment(recipe.facts),
        "flags": recipe.spec.exactly(recipe.resolved).flat(),
        "options": dataclasses.asdict(options),
    }
    if "torch" in options.sides:
        about["environment"]["packages"]["torch"] = torch_side.version(options.torch_python)
    return about


def print_what_is_measured(recipe: Recipe, about: dict[str, Any]) -> None:
    """Prints the gist of what is to be known about the results."""
    spec, resolved, machine = recipe.spec, recipe.resolved, about["environment"]
    terminal.say(
        f"{spec.model.backbone}, {spec.data.image_size} px, {resolved.arithmetic}; "
        f"{recipe.facts}, global batch {resolved.photos_per_step}; "
        f"{machine['cores']} cores of {machine['processor']}; TensorFlow {tf.__version__}"
    )
