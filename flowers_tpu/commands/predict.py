"""Predicts the test photos with the best model of a run and writes the submission.

    python scripts/predict.py --run_dir=runs/quickstart

Writes predictions_test.csv and submission.csv there. With --pseudo_labels it writes none, but a
data set of those test photos of which the run is sure, for the training of another run:

    python scripts/predict.py --run_dir=runs/quickstart --pseudo_labels=0.95 --output_dir=DATA
"""

from flowers_tpu.runs import calibrating, pseudo_labels
from flowers_tpu.runs.folder import RunFolder, results_folder
from flowers_tpu.runs.opening import open_trained
from flowers_tpu.runs.options import PredictOptions
from flowers_tpu.runs.results import predict_test
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.signals import Signals


def predict(given: Spec, options: PredictOptions) -> None:
    """Predicts the test split with a trained run; writes the submission, or a data set of it."""
    if options.pseudo_labels:
        folder = RunFolder(given.run.run_dir)
        trained = open_trained(folder, folder, given, options, ("test",))
        with Signals() as signals, trained.feed.recipe.naming_bad_records(trained.data):
            pseudo_labels.write(trained, options, signals)
        return
    with results_folder(given.run.run_dir, options.output_dir) as (folder, output):
        trained = open_trained(folder, output, given, options, ("test",))
        with Signals() as signals, trained.feed.recipe.naming_bad_records(trained.data):
            predict_test(trained, signals)
        size = trained.feed.recipe.spec.data.evaluation_size
        made = calibrating.made_by(options.checkpoint, size, trained.views)
        calibrating.apply((output, folder), made, output)
