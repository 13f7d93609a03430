"""Scores a trained run on its training and validation photos.

    python scripts/evaluate.py --run_dir=runs/quickstart

Writes scores.json, classification_report_*.csv, confusion_*.csv and predictions_*.csv, then draws
plots/ and report.html anew; to the run's folder, or to --output_dir. Flags that are not given are
those of the run: one trained with --noreport gets its report by --report. With --noreport nothing
is drawn, and what was drawn of earlier scores is removed, as it is not true any more.
--report_images=files makes a page that shows the images in plots/. With another --data_dir the
classes are found by their names, and the report shows no test photos. A run whose training has not
ended is refused; scripts/train.py continues it, and with --finish ends it.

    python scripts/evaluate.py --run_dir=runs/own --split=test

Scores the test photos, whose records must have labels (those of scripts/make_tfrecords.py have them
with --test_labels). Writes scores_test.json, classification_report_test.csv, confusion_test.csv and
predictions_test.csv with the true classes; scores.json and the report stay as they are.
"""

from flowers_tpu.commands.train import print_scores
from flowers_tpu.data import records
from flowers_tpu.monitor import console
from flowers_tpu.runs import calibrating, report
from flowers_tpu.runs.folder import SCORES, TEST_SCORES, results_folder
from flowers_tpu.runs.opening import open_trained
from flowers_tpu.runs.options import EvaluateOptions
from flowers_tpu.runs.results import score_splits
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import files
from flowers_tpu.system.signals import Signals


def evaluate(given: Spec, options: EvaluateOptions) -> None:
    """Scores a run on train and validation, or on test; writes the tables and the report."""
    is_test = options.split == "test"
    splits = ("test",) if is_test else records.LABELED_SPLITS
    with results_folder(given.run.run_dir, options.output_dir) as (folder, output):
        trained = open_trained(
            *(folder, output, given, options, splits), must_have_ended=True, have_labels=True
        )
        recipe, data = trained.feed.recipe, trained.data
        with Signals() as signals, recipe.naming_bad_records(data):
            scores = score_splits(trained, signals, splits)
            if not is_test:
                size = recipe.spec.data.evaluation_size
                made = calibrating.made_by(options.checkpoint, size, trained.views)
                calibrating.calibrate(output, made, splits)
            output.write_json(TEST_SCORES if is_test else SCORES, scores)
            if not is_test:
                report.report(recipe, folder, output, data.splits, signals)
        if is_test:
            console.print_scores(scores, output.path, files.list_dir(output.path))
        else:
            print_scores(output)
