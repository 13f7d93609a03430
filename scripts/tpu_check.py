"""See flowers_tpu/commands/tpu_check.py, or --help."""

import sys

from flowers_tpu.commands import cli

if __name__ == "__main__":
    sys.exit(cli.main("tpu_check"))
