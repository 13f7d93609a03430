"""Starts several workers of one training on this machine, and ends or restarts them together.

    python scripts/launch.py --workers=2 --max_restarts=3 -- scripts/train.py --flagfile=…

What is after -- is run by Python, once for each worker, with --workers and --worker_index added.
Their lines come with their number in front. A signal goes on to all of them: they save and end.
"""

import sys

from flowers_tpu.system.launching import LaunchOptions, launch_all


def launch(options: LaunchOptions, command: list[str]) -> None:
    """Runs a command as several workers; ends with their exit code."""
    sys.exit(launch_all(command, options))
