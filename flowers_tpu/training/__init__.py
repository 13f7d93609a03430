"""Schedules, losses, steps, state and the loop around them; nothing of flags or files of a run."""
