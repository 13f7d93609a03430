"""A trained classifier as a file for elsewhere, a module per format.

Each has `write`, which makes the files of a plain model (`plain.py`) in a folder, and what opens
them again as a function from pixels to probabilities, by which they are checked.
"""
