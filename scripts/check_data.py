"""See flowers_tpu/commands/check_data.py, or --help."""

import sys

from flowers_tpu.commands import cli

if __name__ == "__main__":
    sys.exit(cli.main("check_data"))
