"""Compiles the real steps with the real TPU compiler, on a machine without a TPU."""
