"""A run: its folder, its specification, what it is made of, and how it is opened again."""
