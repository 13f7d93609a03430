"""See flowers_tpu/commands/launch.py, or --help."""

import sys

from flowers_tpu.commands import cli

if __name__ == "__main__":
    sys.exit(cli.main("launch"))
