"""Predicts the test photos with the best model of a run and writes the submission.

    python scripts/predict.py --run_dir=runs/quickstart

Writes predictions_test.csv and submission.csv there.
"""

from flowers_tpu import command_line

if __name__ == "__main__":
    command_line.run("experiment.predict", __doc__, on_existing_run=True)
