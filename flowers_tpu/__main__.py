"""`python -m flowers_tpu COMMAND …`: the commands of `scripts/`."""

import sys

from flowers_tpu.commands import cli

if __name__ == "__main__":
    sys.exit(cli.choose(sys.argv[1:]))
