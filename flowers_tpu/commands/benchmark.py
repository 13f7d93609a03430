"""Measures how fast the program does its job, where the time goes, and how that compares.

    python scripts/benchmark.py --flagfile=scripts/flagfiles/quickstart.flags
    python scripts/benchmark.py --measure=input,memory,resume --data_dir=DATA --image_size=512

All that is compared takes turns, round by round, in one process; the table has the median of the
rounds and the quartiles, and ratios are worked out round by round. Nothing else should run on the
machine meanwhile. The results also go to benchmark.json, .csv and .png, anew after each measure.
"""

import contextlib
import dataclasses
import gc
import os

import tensorflow as tf

from flowers_tpu.benchmarks import measures, plot, results, scaling, table, torch_side
from flowers_tpu.benchmarks.bench import Bench
from flowers_tpu.benchmarks.options import Options, numbers
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.data import records
from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.options import Config
from flowers_tpu.reports import style
from flowers_tpu.runs import folder, recipe
from flowers_tpu.system import devices, files, stderr, terminal
from flowers_tpu.system.errors import RequestError

_PICTURE = "benchmark.png"


def benchmark(given: Config, **options) -> None:
    """Measures the program on a configuration, and prints and writes what came of it.

    The files are written anew after each measure: what ends it early costs only the one it is at.

    Args:
        given: of the run to measure.
        **options: the fields of `Options`.

    Raises:
        RequestError: a flag is wrong, or something does not fit into memory.
    """
    options = Options(**options)
    check_backbone(given.backbone, image_size=given.image_size, alpha=given.alpha)
    before = table.read_json(options.compare_to) if options.compare_to else None
    folder = _output_folder(options, given)
    rows: list[Row] = []
    with contextlib.ExitStack() as contexts:
        bench = _prepare(given, options, contexts)
        about = _about(bench)
        for measure in measures.chosen(options):
            found = measure(bench)
            for line in table.lines(found):
                terminal.say(line)
            rows += found
            written = _write(folder, rows, about)
            gc.collect()  # models are full of cycles, and would be there beside the next ones
    if before:
        terminal.say(f"\nCompared with {options.compare_to}:")
        earlier, about_earlier = before
        for line in table.difference_lines(about_earlier, about):
            terminal.say(line)
        for line in table.comparison_lines(results.changes(rows, earlier)):
            terminal.say(line)
    terminal.say(f"\nIn {folder}: {', '.join(written)}")


def _prepare(given: Config, options: Options, contexts: contextlib.ExitStack) -> Bench:
    # Else TensorFlow takes all of a GPU's memory, and none is left for the processes of measures.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if counts := numbers("replicas_sweep", options.replicas_sweep):
        # The CPU can be split once only, before anything else asks for devices.
        with stderr.without_chatter():
            devices.choose_devices(replicas=max(*counts, given.replicas))
    devices = recipe.choose_devices(given)
    config = recipe.resolve(given, devices)
    scaling.check(config, options)
    if "torch" in options.sides:
        torch_side.check(options.torch_python, config, devices.kind)
    there = records.LABELED_SPLITS
    if not tf.io.gfile.isdir(files.join(recipe.data_folder(config), "val")):
        there = ("train",)
    data = recipe.load_data(config, there)
    _check_data(config, options, data)
    return Bench(config, options, devices, data, contexts)


def _check_data(config: Config, options: Options, data: recipe.Data) -> None:
    """Raises RequestError where measures would fail on this data set."""
    split, batch_size = data.splits["train"], config.global_batch_size
    if {"input", "loop", "startup", "memory"} & set(options.measures):
        recipe.make_plan(config, data)  # refuses fewer photos than a global batch has
    if {"memory", "resume"} & set(options.measures) and options.many_photos < batch_size:
        raise RequestError(
            f"--many_photos={options.many_photos}: is below the global batch of {batch_size}; give "
            "at least as many"
        )
    if "notebook" in options.sides and split.photo_size != config.image_size:
        raise RequestError(
            f"--against=notebook: its network sees photos as they are, here of {split.photo_size} "
            f"px, but --image_size={config.image_size}; use --image_size={split.photo_size}, or "
            "photos of the other size"
        )


def _about(bench: Bench) -> dict:
    """What is to be known about the results; prints the gist of it."""
    config, devices = bench.config, bench.devices
    environment = folder.environment(devices.kind, devices.replicas)
    if "torch" in bench.options.sides:
        environment["packages"]["torch"] = torch_side.version(bench.options.torch_python)
    terminal.say(
        f"{config.backbone}, {config.image_size} px, {config.precision}; "
        f"{devices.describe(devices)}, global batch {config.global_batch_size}; "
        f"{environment['cores']} cores of {environment['processor']}; TensorFlow {tf.__version__}"
    )
    return {
        "environment": environment,
        "flags": dataclasses.asdict(config),
        "options": dataclasses.asdict(bench.options),
    }


def _write(folder: str, rows: list[Row], about: dict) -> list[str]:
    """Writes the results; returns the names of the files."""
    contents = {
        "benchmark.json": table.as_json(rows, about),
        "benchmark.csv": table.as_csv(rows, about),
    }
    footer = ", ".join(f"{name} {value}" for name, value in table.origin(about).items())
    if drawn := plot.draw(rows, footer):
        contents[_PICTURE] = style.png(drawn)
    elif tf.io.gfile.exists(files.join(folder, _PICTURE)):
        tf.io.gfile.remove(files.join(folder, _PICTURE))  # of an earlier benchmark
    for name, content in contents.items():
        files.write_atomically(files.join(folder, name), content)
    return list(contents)


def _output_folder(options: Options, given: Config) -> str:
    """Makes the folder for the results.

    Raises:
        RequestError: it is a file, a run's, or cannot be made.
    """
    name = os.path.basename(os.path.normpath(given.run_dir))
    folder = options.output_dir or files.join("runs", f"benchmark-{name}")
    folder.check_output_dir(folder)
    folder.make_output_dir(folder)
    return folder
