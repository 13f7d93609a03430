"""Scores the best model of a run on its training and validation photos.

    python scripts/evaluate.py --run_dir=runs/quickstart

Writes scores.json, classification_report_*.csv, confusion_*.csv and predictions_*.csv there, then
draws plots/ and report.html anew. Flags that are not given are those of the run: one trained with
--noreport gets its report by --report. With --noreport nothing is drawn, and what was drawn of
earlier scores is removed, as it is not true any more. --report_images=files makes a page that shows
the images in plots/. Where --data_dir is another than in training, the report shows no test photos.
A run whose training has not ended is refused; scripts/train.py continues it.
"""

from flowers_tpu import command_line

if __name__ == "__main__":
    command_line.run("experiment.evaluate", __doc__, on_existing_run=True)
