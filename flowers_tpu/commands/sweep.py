"""Trains the recipes of a list, one after another, and compares what came of them.

    python scripts/sweep.py scripts/flagfiles/ablation.sweep --output_dir=runs/ablation

The list has flags for all runs, then a name in brackets for each recipe, with its flags:

    --flagfile=scripts/flagfiles/oxford102.flags
    --image_size=128

    [as it is]

    [EMA]
    --ema_decay=0.99

Each recipe is trained once for each of --seeds, by train.py, in a run directory of its own below
--output_dir, with its output beside it in a .txt. The same command again continues: finished runs
are read, an interrupted one goes on. A run that fails is one row that says so; the others go on.
With other --seeds or --only, the rows of runs that finished in earlier calls stay.

Writes sweep.csv (a row a run), summary.csv and summary.md (a row a recipe: mean and standard
deviation over the seeds, 95 % interval, gain over the first recipe) and sweep.png.
"""

import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pandas as pd

from flowers_tpu.commands.cli import spec_of
from flowers_tpu.commands.compare import read_run
from flowers_tpu.reports import style
from flowers_tpu.reports import sweep as pictures
from flowers_tpu.reports.compare import table
from flowers_tpu.reports.options import SweepOptions
from flowers_tpu.system import files, folders, terminal
from flowers_tpu.system.errors import RequestError, RunError, StoppedError
from flowers_tpu.system.signals import Signals

_NAME = re.compile(r"\[(.+)\]")
_OWN = ("run_dir", "seed")  # flags that a sweep gives itself


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        name: of the recipe.
        seed: of the run.
        flags: of train.py, with `--seed` and `--run_dir`.
        run_dir: of the run.
    """

    name: str
    seed: int
    flags: tuple[str, ...]
    run_dir: str


def sweep(options: SweepOptions, arguments: list[str]) -> None:
    """Trains every recipe of a list with every seed; writes tables and a picture.

    Args:
        options: where to, seeds, and which recipes.
        arguments: the file of the list.

    Raises:
        RequestError: the list cannot be read or used; no run has begun then.
        RunError: a run failed; the others are done.
        StoppedError: a signal came; the same command continues.
    """
    if len(arguments) > 1:
        raise RequestError(f"expected one list of recipes, found also {arguments[1]}")
    recipes = read_recipes(arguments[0])
    jobs = list(plan_jobs(options, recipes))
    for job in jobs:
        try:
            spec_of(job.flags)
        except RequestError as error:
            raise RequestError(f"{arguments[0]}: [{job.name}]: {error}") from error
    with folders.locked(options.output_dir, "output_dir"), Signals() as signals:
        rows = _earlier(options.output_dir, list(recipes))
        for number, job in enumerate(jobs, 1):
            terminal.say(f"[{number}/{len(jobs)}] {job.name}, seed {job.seed} …")
            code = _train(job, signals)
            signals.check()
            rows[job.name, job.seed] = row = _row(job, code)
            terminal.say(f"    {row['state']}{_told(row)}")
            table = _in_order(rows, list(recipes))
            _write(options.output_dir, table)
    _tell(options.output_dir, table)


def read_recipes(path: str) -> dict[str, list[str]]:
    """Reads a list of recipes: the flags of each, those for all first, by name.

    Raises:
        RequestError: there is no such file, or a line of it is not understood.
    """
    if not files.exists(path):
        raise RequestError(f"{path}: no such file; expected a list of recipes, see --help")
    common: list[str] = []
    recipes: dict[str, list[str]] = {}
    flags = common
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if match := _NAME.fullmatch(line):
            if match[1] in recipes:
                raise RequestError(f"{path}, line {number}: a second recipe called [{match[1]}]")
            flags = recipes[match[1]] = list(common)
        elif not line.startswith("-"):
            raise RequestError(
                f"{path}, line {number}: expected [a name] or a flag like --epochs=8, "
                f"found {line!r}"
            )
        elif line.lstrip("-").partition("=")[0] in _OWN:
            raise RequestError(
                f"{path}, line {number}: {line}: each run gets its own; give --seeds and "
                "--output_dir to the sweep"
            )
        else:
            flags.append(line)
    if not recipes:
        raise RequestError(f"{path}: has no [name] of a recipe")
    return recipes


def plan_jobs(options: SweepOptions, recipes: dict[str, list[str]]) -> Iterator[Job]:
    """Yields the runs of a sweep: all recipes with the first seed, then with the next.

    Raises:
        RequestError: `only` names a recipe that is not in the list, `seeds` are no numbers, or two
            names would be one folder.
    """
    only = [name.strip() for name in options.only.split(",")] if options.only else list(recipes)
    if unknown := [name for name in only if name not in recipes]:
        raise RequestError(f"--only={options.only}: there is no [{unknown[0]}] in the list, "
                           f"which has {', '.join(recipes)}")  # fmt: skip
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError as error:
        raise RequestError(
            f"--seeds={options.seeds}: expected whole numbers, like 0,1,2"
        ) from error
    folders: dict[str, str] = {}
    for name in only:
        folder = re.sub(r"[^\w.+-]+", "_", name)
        if other := folders.get(folder):
            raise RequestError(f"[{other}] and [{name}] would have one folder, {folder}")
        folders[folder] = name
    for seed in seeds:
        for folder, name in folders.items():
            run_dir = files.join(options.output_dir, f"{folder}-seed{seed}")
            flags = (*recipes[name], f"--seed={seed}", f"--run_dir={run_dir}")
            yield Job(name, seed, flags, run_dir)


def _train(job: Job, signals: Signals) -> int:
    """Runs train.py, its output going to a file; returns its exit code."""
    command = [sys.executable, "-m", "flowers_tpu", "train", *job.flags]
    with open(f"{job.run_dir}.txt", "ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        while True:
            try:
                return process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                if signals.stop_requested:
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                    raise StoppedError("stopped; the same command continues") from None


def _row(job: Job, code: int) -> dict[str, object]:
    """What a run came to."""
    row: dict[str, object] = {"name": job.name, "seed": job.seed}
    if code:
        said = files.read_text(f"{job.run_dir}.txt").strip().splitlines()
        return row | {"state": f"failed with exit code {code}: {said[-1] if said else ''}",
                      **dict.fromkeys(("macro_f1", "low", "high", "accuracy"))}  # fmt: skip
    run = read_run(job.run_dir, job.name)
    columns = {"macro_f1": "macro_f1", "low": "macro_f1_low", "high": "macro_f1_high"}
    shown, val = table([run]).iloc[0], (run.scores or {}).get("val", {})  # nothing may validate
    return row | {
        "state": "finished",
        **{column: val.get(score) for column, score in columns.items()},
        "accuracy": val.get("accuracy"),
        "epochs": int(shown["epochs"]),
        "best": shown["best"],
        "train_macro_f1": shown["train F1"],
        "minutes": shown["minutes"],
        "run_dir": job.run_dir,
    }


def _earlier(folder: str, recipes: list[str]) -> dict[tuple[str, int], dict[str, object]]:
    """The finished runs of earlier calls, by recipe and seed, as far as the list has them."""
    path = files.join(folder, "sweep.csv")
    if not files.exists(path):
        return {}
    rows = pd.read_csv(io.StringIO(files.read_text(path)))
    rows = rows[(rows["state"] == "finished") & rows["name"].isin(recipes)]
    return {(row["name"], row["seed"]): row for row in rows.to_dict("records")}


def _in_order(rows: dict[tuple[str, int], dict], recipes: list[str]) -> pd.DataFrame:
    """The rows as a table: recipes as in the list, then by seed."""
    return pd.DataFrame(
        [rows[key] for key in sorted(rows, key=lambda k: (recipes.index(k[0]), k[1]))]
    )


def _told(row: dict[str, object]) -> str:
    if row["macro_f1"] is None:
        return ""
    return (
        f": macro F1 {row['macro_f1']:.4f} ({row['low']:.3f} to {row['high']:.3f}), "
        f"{row['minutes']:.1f} min"
    )


def _write(folder: str, rows: pd.DataFrame) -> None:
    """Writes tables and picture of the runs so far."""
    files.write_atomically(files.join(folder, "sweep.csv"), rows.to_csv(index=False))
    if rows["macro_f1"].isna().all():
        return
    summary = pictures.summary(rows)
    files.write_atomically(files.join(folder, "summary.csv"), summary.to_csv(index=False))
    files.write_atomically(files.join(folder, "summary.md"), pictures.markdown(summary))
    style.save(pictures.picture(rows), files.join(folder, "sweep.png"))


def _tell(folder: str, rows: pd.DataFrame) -> None:
    """Prints the summary.

    Raises:
        RunError: a run failed.
    """
    if not rows["macro_f1"].isna().all():
        terminal.say(f"\n{pictures.markdown(pictures.summary(rows))}")
        terminal.say(f"In {folder}: sweep.csv, summary.csv, summary.md, sweep.png")
    if failed := list(rows["name"][rows["state"] != "finished"]):
        raise RunError(
            f"{len(failed)} of {len(rows)} runs failed: {', '.join(failed)}; what each said last "
            f"is in {os.path.join(folder, 'sweep.csv')}"
        )
