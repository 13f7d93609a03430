"""Scores the best model of a run on its training and validation photos.

    python scripts/evaluate.py --run_dir=runs/quickstart

Writes scores.json, classification_report_*.csv, confusion_*.csv and predictions_*.csv there, then
draws plots/ and report.html: --report where the run was trained without, --noreport to leave them
as they are, --report_images=files for a page that shows the images in plots/.
"""

from flowers_tpu import command_line

if __name__ == "__main__":
    command_line.run("experiment.evaluate", __doc__, on_existing_run=True)
