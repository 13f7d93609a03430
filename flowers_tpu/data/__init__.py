"""TFRecords and pixels; nothing of models or training."""
