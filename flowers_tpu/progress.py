"""Progress of long work: a bar in a terminal, nothing where output goes to a file."""

import sys

from tqdm.auto import tqdm


def bar(total: int, description: str, unit: str = "photos") -> tqdm:
    """Returns a bar with rate and time left, on standard error; none where that is no terminal."""
    return tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        unit_scale=True,
        disable=None,
        leave=False,
        dynamic_ncols=True,
        file=sys.stderr,
    )


def say(text: str = "") -> None:
    """Prints a line without breaking a bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
