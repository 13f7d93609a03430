"""Work of the benchmark in a fresh process, whose answer is the last line that it prints."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence

from flowers_tpu.options import Config
from flowers_tpu.system.errors import RunError


def run(module: str, arguments: Sequence[str], config: Config) -> dict[str, float]:
    """Runs `python -m module *arguments CONFIG`; returns the JSON object it prints at the end.

    Raises:
        RunError: the process fails.
    """
    command = [sys.executable, "-m", module, *arguments, json.dumps(dataclasses.asdict(config))]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"{' '.join([module, *arguments])}: the process ended with: {last}")
    return json.loads(process.stdout.splitlines()[-1])


def read_config(text: str) -> Config:
    """The configuration that `run` hands over."""
    return Config(**json.loads(text))
