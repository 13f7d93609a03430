"""`python -m flowers_tpu COMMAND …`: the commands of `scripts/`."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["doctor"]:  # it must run if what the others import is missing
        from flowers_tpu.doctor.main import main

        sys.exit(main(sys.argv[2:]))
    from flowers_tpu.commands import cli

    sys.exit(cli.choose(sys.argv[1:]))
