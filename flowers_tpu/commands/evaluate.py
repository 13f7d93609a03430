"""Scores a trained run on its training and validation photos.

    python scripts/evaluate.py --run_dir=runs/quickstart

Writes scores.json, classification_report_*.csv, confusion_*.csv and predictions_*.csv, then draws
plots/ and report.html anew; to the run's folder, or to --output_dir. Flags that are not given are
those of the run: one trained with --noreport gets its report by --report. With --noreport nothing
is drawn, and what was drawn of earlier scores is removed, as it is not true any more.
--report_images=files makes a page that shows the images in plots/. With another --data_dir the
classes are found by their names, and the report shows no test photos. A run whose training has not
ended is refused; scripts/train.py continues it, and with --finish ends it.
"""

from flowers_tpu.commands.train import print_scores
from flowers_tpu.data import records
from flowers_tpu.runs import report
from flowers_tpu.runs.folder import SCORES, results_folder
from flowers_tpu.runs.opening import open_trained
from flowers_tpu.runs.options import ResultsOptions
from flowers_tpu.runs.results import score_splits
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.signals import Signals


def evaluate(given: Spec, options: ResultsOptions) -> None:
    """Scores a run on train and validation, writes the tables and the report."""
    with results_folder(given.run.run_dir, options.output_dir) as (folder, output):
        trained = open_trained(
            *(folder, output, given, options, records.LABELED_SPLITS), must_have_ended=True
        )
        recipe, data = trained.feed.recipe, trained.data
        with Signals() as signals, recipe.naming_bad_records(data):
            output.write_json(SCORES, score_splits(trained, signals))
            report.report(recipe, folder, output, data.splits, signals)
        print_scores(output)
