"""Says what is there, what is wrong and what mends it. Runs where nothing else does.

The standard library alone, and Python 3.8: nothing here may import another room.
"""
