"""The command line in this process, which is left as it was."""

import contextlib
import logging as standard_logging
from collections.abc import Iterator
from unittest import mock

from absl import flags, logging

from flowers_tpu.commands import cli
from flowers_tpu.system import allocator


def call(name: str, *arguments: str) -> int:
    """Runs a command as `scripts/<name>.py` does; returns its exit code."""
    with logging_put_back(), mock.patch.object(allocator, "keep_freed_memory"):
        return cli.main(name, [str(argument) for argument in arguments])


@contextlib.contextmanager
def logging_put_back() -> Iterator[None]:
    """A command sets absl's logging up, for the whole process."""
    root, handler = standard_logging.root, logging.get_absl_handler()
    inner = handler.python_handler
    before = list(root.handlers), root.level, logging.get_verbosity()
    was_parsed = flags.FLAGS.is_parsed()
    of_handler = inner.formatter, inner.stream, list(handler.filters)
    try:
        yield
    finally:
        if not was_parsed:
            flags.FLAGS.unparse_flags()
        logging.set_verbosity(before[2])
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        inner.formatter, inner.stream, handler.filters[:] = of_handler
