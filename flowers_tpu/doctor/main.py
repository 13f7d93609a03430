"""The command: flags, facts, rules, page, exit code."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Sequence

from flowers_tpu.doctor import facts as facts_lib
from flowers_tpu.doctor import rules
from flowers_tpu.doctor.page import page

DESCRIPTION = """Says what is here, what is wrong, and which command mends it.

    python scripts/doctor.py

It needs Python 3.8 and nothing else: neither this package nor any other need be installed.
Exit codes: 0 nothing is wrong; 1 something is; 2 the request is wrong."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the doctor; returns the exit code. None for the arguments of this process."""
    parser = argparse.ArgumentParser(
        prog="doctor", description=DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run_dir", default="runs", help="the folder that runs would go to")
    parser.add_argument(
        "--init", action="store_true",
        help=f"start the TPU, in a process of its own, for {facts_lib.TPU_SECONDS} s at most",
    )  # fmt: skip
    parser.add_argument(
        "--facts", metavar="FILE", help="look at facts that were recorded elsewhere"
    )
    parser.add_argument("--json", action="store_true", help="print the facts themselves, to record")
    flags = parser.parse_args(arguments)
    try:
        facts = _read(flags.facts) if flags.facts else facts_lib.gather(flags.run_dir, flags.init)
    except (OSError, ValueError) as error:
        print(f"doctor: --facts={flags.facts}: {error}", file=sys.stderr)
        return 2
    troubles = rules.diagnose(facts)
    _print(json.dumps(facts, indent=1) + "\n" if flags.json else page(facts, troubles))
    return int(any(trouble.kind == rules.WRONG for trouble in troubles))


def _read(path: str) -> dict:
    with open(path, encoding="utf-8") as file:
        facts = json.load(file)
    if not isinstance(facts, dict):
        raise ValueError("expected a JSON object, as --json prints it")
    return facts


def _print(text: str) -> None:
    """Prints, also if the terminal lacks a letter of some path."""
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
