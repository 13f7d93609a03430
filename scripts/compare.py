"""Compares runs: their scores, the flags that differ, and their validation curves.

    python scripts/compare.py runs/quickstart runs/another …

Runs that are not finished are compared by their best epoch so far. The curves go to --output.
"""

import dataclasses

from flowers_tpu import command_line, config


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of this script."""

    output: str = config.knob("comparison.png", "Output", "PNG file for the curves.")
    overwrite: bool = config.knob(False, "Output", "Replace --output where it exists.")


if __name__ == "__main__":
    command_line.run(
        "comparison.compare_runs",
        __doc__,
        options=Options,
        takes_config=False,
        arguments="the folders of two or more runs",
    )
