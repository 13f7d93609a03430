"""Scores the best model of a run on its training and validation photos.

    python scripts/evaluate.py --run_dir=runs/quickstart

Writes scores.json, classification_report_*.csv, confusion_*.csv and predictions_*.csv there.
"""

from flowers_tpu import command_line

if __name__ == "__main__":
    command_line.run("evaluate", __doc__, on_existing_run=True)
