"""What is looked at: plots, sheets of photos, the exploration of a data set, a run's report."""
