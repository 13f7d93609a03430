"""Averages the probabilities of several runs: scores, a report and one submission.

    python scripts/ensemble.py runs/one runs/another … --output_dir=runs/ensemble

No model is needed: the outputs that runs keep in outputs_*.npz are. Classes are matched by name
and photos by what they hold (by their ids if the runs have photos of other sizes), and each photo
counts once. Runs of versions that kept no outputs are refused with the commands that make them.

--weights=search fits a weight for each run on the validation photos. The scores of validation are
then by cross-validation: those of each photo by weights that were fitted without it.

Runs that validate on different parts of one data set are its folds: each photo is scored by the
runs that were not trained on it, and the test photos are predicted by all.
"""

from flowers_tpu.monitor import console
from flowers_tpu.runs import calibrating, report
from flowers_tpu.runs.ensemble import Ensemble, gather, read_member
from flowers_tpu.runs.folder import SCORES, RunFolder, several
from flowers_tpu.runs.options import EnsembleOptions
from flowers_tpu.runs.results import score_outputs, write_submission
from flowers_tpu.system import files, folders, terminal
from flowers_tpu.system.signals import Signals


def ensemble(options: EnsembleOptions, paths: list[str]) -> None:
    """Averages runs; writes scores, tables, a submission and a report.

    Args:
        options: how, and where to.
        paths: of the run directories, at least two.

    Raises:
        RequestError: there is just one run, one is given twice, or they do not fit together.
    """
    members = [read_member(path) for path in several(paths)]
    made = gather(members, search=options.weights == "search")
    folders.check_usable(options.output_dir, "output_dir", folders.ENSEMBLE)
    with folders.locked(options.output_dir, "output_dir"), Signals() as signals:
        output = RunFolder(options.output_dir)
        output.write_json(folders.ENSEMBLE.marker, made.about)
        write_submission(output, made.outputs["test"])
        scores = {
            name: score_outputs(output, name, made.outputs[name])
            for name in ("train", "val")
            if name in made.outputs
        }
        calibrating.calibrate(output, {}, tuple(made.outputs))
        output.write_json(SCORES, scores)
        report.report_ensemble(members[0].run, output, made, options, signals)
    _tell(made)
    console.print_scores(scores, output.path, files.list_dir(output.path))


def _tell(made: Ensemble) -> None:
    about = made.about
    terminal.say("\n  weight  val macro F1  run")
    for run in about["runs"]:
        f1 = f"{run['val_macro_f1']:.4f}" if "val_macro_f1" in run else "–"
        terminal.say(f"{run['weight']:>8.4f}{f1:>14}  {run['run']}")
    if about["photos_known_by"] == "ids":
        terminal.say("The photos are of different sizes, so they were matched by their ids.")
    if about["folds"]:
        terminal.say(
            f"{about['folds']} folds: val is all their validation photos, each scored by the runs "
            "that were not trained on it."
        )
        return
    if about["weights"] == "search":
        terminal.say("The scores of val are cross-validated: by weights fitted without the photo.")
    if "gain_over_best" not in about:
        terminal.say("Nothing validates the runs, so that nothing measures their mean.")
        return
    terminal.say(
        f"Macro F1 of val over the best run: {about['gain_over_best']:+.4f} "
        f"(95 %: {about['gain_low']:+.4f} to {about['gain_high']:+.4f})."
    )
    if "train" not in made.outputs:
        terminal.say("The runs were trained on different photos, so train is not scored.")
