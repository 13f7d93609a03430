"""From photos, in folders or a CSV, to a data set in the layout of the competition."""
