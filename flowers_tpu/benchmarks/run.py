"""What `scripts/benchmark.py` calls: measures one thing after the other, and tells the results."""

import dataclasses
import gc
import os

import tensorflow as tf

from flowers_tpu import distribution, files, parts, progress, quiet, run_directory
from flowers_tpu.benchmarks import measures, plot, results, table, torch_side
from flowers_tpu.benchmarks.bench import Bench
from flowers_tpu.benchmarks.options import Options, numbers
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.config import Config
from flowers_tpu.data import records
from flowers_tpu.errors import RequestError
from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.reports import style
from flowers_tpu.run_directory import RunDirectory


def benchmark(given: Config, **options) -> None:
    """Measures the program on a configuration, and prints and writes what came of it.

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
    bench = _prepare(given, options)
    about = _about(bench)
    rows: list[Row] = []
    for measure in (*(measures.BY_NAME[name] for name in options.measures), measures.sweeps):
        found = measure(bench)
        for line in table.lines(found):
            progress.say(line)
        rows += found
        gc.collect()  # models are full of cycles, and would be there beside the next ones
    written = _write(folder, rows, about)
    if before is not None:
        progress.say(f"\nCompared with {options.compare_to}:")
        for line in table.comparison_lines(results.changes(rows, before)):
            progress.say(line)
    progress.say(f"\nIn {folder}: {', '.join(written)}")


def _prepare(given: Config, options: Options) -> Bench:
    if counts := numbers("replicas_sweep", options.replicas_sweep):
        # The CPU can be split once only, before anything else asks for devices.
        with quiet.without_chatter():
            distribution.choose_devices(replicas=max(*counts, given.replicas))
    devices = parts.choose_devices(given)
    config = parts.resolve(given, devices)
    if "torch" in options.sides:
        torch_side.check(options.torch_python, config)
    there = records.LABELED_SPLITS
    if not tf.io.gfile.isdir(files.join(parts.data_folder(config), "val")):
        there = ("train",)
    return Bench(config, options, devices, parts.load_data(config, there))


def _about(bench: Bench) -> dict:
    """What is to be known about the results; prints the gist of it."""
    config, devices = bench.config, bench.devices
    environment = run_directory.environment(devices.kind, devices.replicas)
    progress.say(
        f"{config.backbone}, {config.image_size} px, {config.precision}; "
        f"{distribution.describe(devices)}, global batch {config.global_batch_size}; "
        f"{environment['cores']} cores of {environment['processor']}; TensorFlow {tf.__version__}"
    )
    return {
        "environment": environment,
        "flags": dataclasses.asdict(config),
        "options": dataclasses.asdict(bench.options),
    }


def _write(folder: str, rows: list[Row], about: dict) -> list[str]:
    """Writes the results; returns the names of the files."""
    contents = {"benchmark.json": table.as_json(rows, about), "benchmark.csv": table.as_csv(rows)}
    if drawn := plot.draw(rows):
        contents["benchmark.png"] = style.png(drawn)
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
    if tf.io.gfile.exists(folder) and not tf.io.gfile.isdir(folder):
        raise RequestError(f"--output_dir={folder}: is a file; choose a folder")
    if RunDirectory(folder).is_run():
        raise RequestError(f"--output_dir={folder}: holds a run; choose another folder")
    try:
        tf.io.gfile.makedirs(folder)
    except tf.errors.OpError as error:
        raise RequestError(f"--output_dir={folder}: cannot be made ({error.message})") from error
    return folder
