"""Scores the best model of a run on its training and validation photos.

    python scripts/evaluate.py --run_dir=runs/quickstart

Writes scores.json, classification_report_*.csv, confusion_*.csv and predictions_*.csv there, then
draws plots/ and report.html anew. Flags that are not given are those of the run: one trained with
--noreport gets its report by --report. With --noreport nothing is drawn, and what was drawn of
earlier scores is removed, as it is not true any more. --report_images=files makes a page that shows
the images in plots/. If --data_dir is another than in training, the report shows no test photos.
A run whose training has not ended is refused; scripts/train.py continues it.
"""

from flowers_tpu.commands.train import print_scores
from flowers_tpu.data import records
from flowers_tpu.runs import report
from flowers_tpu.runs.folder import SCORES, opened_run
from flowers_tpu.runs.opening import open_trained
from flowers_tpu.runs.results import score_splits
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.signals import Signals


def evaluate(given: Spec) -> None:
    """Scores the best model of a run on train and validation, writes the tables and the report."""
    with opened_run(given.run.run_dir) as folder:
        trained = open_trained(folder, given, records.LABELED_SPLITS, must_have_ended=True)
        recipe, data = trained.feed.recipe, trained.data
        with Signals() as signals, recipe.naming_bad_records(data):
            folder.write_json(SCORES, score_splits(trained, signals))
            report.report(recipe, folder, data.splits, signals)
        print_scores(folder)
