"""Names what is on photos, by a trained run.

    python scripts/classify.py runs/quickstart photo.jpg holidays/
    python scripts/classify.py runs/quickstart holidays/ --output=sheet.png --json

Photos may be of any size, aspect and format that Pillow reads; they are turned upright by their
EXIF tag, and what is seen is the largest square in the middle. Of a folder all photos in it are
named. Each gets its five best names with their probabilities; "not sure" are those whose best one
is below the confidence that 95 % of the run's validation photos reach. Photos that cannot be read
are listed, and the others still named. The run's data are not needed.
"""

import json
import os
from typing import Any

from flowers_tpu.reports import photos as sheets
from flowers_tpu.reports import style
from flowers_tpu.runs.folder import RunFolder
from flowers_tpu.runs.naming import Answer, Namer, Unread, open_namer, photos_in
from flowers_tpu.runs.options import ClassifyOptions
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import files, terminal
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.signals import Signals

_COLUMNS = 5


def classify(given: Spec, options: ClassifyOptions, photos: list[str]) -> None:
    """Prints names for photos, and draws a sheet of them if that is asked for.

    Raises:
        RequestError: the run or the output cannot be used, or there is no photo that can be read.
    """
    if options.output and files.exists(options.output):
        raise RequestError(f"--output={options.output}: exists; choose another name")
    paths = photos_in(photos)
    if not paths:
        raise RequestError(f"{', '.join(photos)}: no photos there")
    folder = RunFolder(given.run.run_dir)
    namer = open_namer(folder, given, options.checkpoint)
    with Signals() as signals:
        found = list(namer(paths, signals))
    answers = [one for one in found if isinstance(one, Answer)]
    unread = [one for one in found if isinstance(one, Unread)]
    if options.json:
        about = {"run": folder.path, "checkpoint": options.checkpoint}
        terminal.say(json.dumps(about | as_json(namer, answers, unread), indent=2))
    else:
        terminal.say(as_text(namer, answers, unread))
    if not answers:
        raise RequestError(f"none of {len(unread)} photos could be read")
    if options.output:
        style.save(sheet(answers), options.output)
        if not options.json:
            terminal.say(f"\nsheet: {options.output}")


def as_text(namer: Namer, answers: list[Answer], unread: list[Unread]) -> str:
    """Returns a table of names for a person."""
    lines = []
    for answer in answers:
        lines.append(answer.path + ("" if answer.is_sure else "  (not sure)"))
        for name, probability in zip(answer.names, answer.probabilities, strict=True):
            lines.append(f"  {100 * probability:5.1f} %  {name}")
    lines += [f"{one.path}: cannot be read ({one.reason})" for one in unread]
    usual = namer.usual_confidence
    doubt = sum(not answer.is_sure for answer in answers)
    lines.append(
        "\nNot sure is never said, as the run has no predictions of validation photos."
        if usual is None
        else f"\nNot sure ({doubt} of {len(answers)}): the best name is below {100 * usual:.1f} %, "
        "the confidence that 95 % of the validation photos reach."
    )
    return "\n".join(lines)


def as_json(namer: Namer, answers: list[Answer], unread: list[Unread]) -> dict[str, Any]:
    """Returns the same for a program."""
    return {
        "not_sure_below": namer.usual_confidence,
        "photos": [
            {
                "photo": answer.path,
                "sure": answer.is_sure,
                "names": [
                    {"name": name, "probability": probability}
                    for name, probability in zip(answer.names, answer.probabilities, strict=True)
                ],
            }
            for answer in answers
        ],
        "unreadable": [{"photo": one.path, "reason": one.reason} for one in unread],
    }


def sheet(answers: list[Answer]) -> style.Figure:
    """Returns the photos as the model saw them, with their names; grey if it is not sure."""
    titles = [
        f"{os.path.basename(answer.path)}\n{answer.names[0]}\n{100 * answer.probabilities[0]:.0f} %"
        + ("" if answer.is_sure else ", not sure")
        for answer in answers
    ]
    return sheets.sheet(
        [answer.pixels for answer in answers],
        titles,
        columns=_COLUMNS,
        colors=["black" if answer.is_sure else style.GREY for answer in answers],
    )
