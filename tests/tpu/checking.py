"""A check with figures that are simple, for tests."""

import json

from flowers_tpu.commands import tpu_check
from flowers_tpu.options import Config
from flowers_tpu.tpu.compiler import Compiled

GIB = 2**30


def figures(temporaries=1.0 * GIB):
    memory = {
        "arguments": 0.5 * GIB,
        "outputs": 0.25 * GIB,
        "aliased": 0.25 * GIB,
        "temporaries": temporaries,
        "code": 0.0,
    }
    return Compiled(memory, flops=61.5e12, bytes_accessed=45e9, seconds=2.0)


def run(tmp_path, config=None, **options):
    defaults = {
        "topology": "v3",
        "find_batch": False,
        "output_dir": str(tmp_path / "out"),
        "compile_minutes": 2.0,
        "host_images_per_second": 0.0,
    }
    tpu_check.check(config or config_of(), **{**defaults, **options})
    return read_json(tmp_path)


def config_of(**flags):
    defaults = {"backbone": "small_cnn", "image_size": 32, "warmup_epochs": 0}
    return Config(**{**defaults, "run_dir": "runs/mine", **flags})


def read_json(tmp_path):
    return json.loads((tmp_path / "out" / "mine.json").read_text())


def rows_of(table):
    """The cells of each row of the tables, by its label; of the last one where there are more."""
    return {line[:38].strip(): line[38:].split() for line in table.splitlines()}
