"""A data set in pictures and tables."""
