"""The embedded data set: drawn flowers."""
