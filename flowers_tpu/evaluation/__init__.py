"""Scores, predictions and submissions, from the outputs of a model; never trains."""
