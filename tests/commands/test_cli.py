"""The command line: flags, help and exit codes, with commands that only remember what they got."""

import subprocess
import sys
from unittest import mock

import pytest
from absl import flags as absl_flags
from absl import logging

from flowers_tpu.commands import cli, compare, evaluate, explore, train
from flowers_tpu.reports.options import CompareOptions, ExploreOptions
from flowers_tpu.runs.options import EvaluateOptions
from flowers_tpu.runs.spec import FIELDS, PARTS, Spec
from flowers_tpu.system import allocator, terminal
from flowers_tpu.system.errors import RequestError, RunError, StoppedError
from tests import finished_runs
from tests.calling import call, logging_put_back
from tests.photos import write_data_set


@pytest.fixture
def got(monkeypatch):
    """What commands were called with; they do nothing else."""
    calls = []
    for command in (train, evaluate, explore, compare):
        name = command.__name__.rpartition(".")[2]
        monkeypatch.setattr(command, name, lambda *given: calls.append(given))
    return calls


def spec_of(*arguments, got):
    assert call("train", *arguments) == 0
    ((spec,),) = got
    return spec


# Help


@pytest.mark.parametrize("flag", ["--help", "-h", "-help", "--helpfull"])
def test_help_names_every_flag_and_its_default(got, capsys, flag):
    assert call("train", "--no_such_flag", flag) == 0
    text = capsys.readouterr().out
    assert text.startswith("Trains a flower classifier, evaluates it and writes a submission.\n\n")
    lines = text.splitlines()
    for field in FIELDS.values():
        name = f"--[no]{field.name} " if field.type is bool else f"--{field.name}="
        (line,) = (line for line in lines if line.startswith(f"  {name}"))
        unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
        may_change = "; may change on the same run" if field.metadata["free"] else ""
        assert line.endswith(f"(default {field.default!r}{unit}{may_change})")
        assert " ".join(field.metadata["help"].split()) in " ".join(text.split())
    assert "adam|adamw" in text
    assert "--flagfile" in text
    assert max(len(line) for line in lines) <= 100
    topics = [f"{kind.topic}:" for kind in PARTS.values()]
    assert [line for line in lines if line in topics] == topics
    assert not got


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_help(name, capsys):
    assert call(name, "--help") == 0
    text = capsys.readouterr().out
    assert f"scripts/{name}.py" in text.partition("Also:")[0]
    assert max(len(line) for line in text.splitlines()) <= 100


def test_the_help_begins_with_the_command_s_own_flags(capsys):
    assert call("explore", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  --class=str  (default '')" in lines
    assert lines.index("Exploration:") < lines.index("Devices:")
    assert call("compare", "--help") == 0
    assert "--seed" not in capsys.readouterr().out


def test_help_and_wrong_flags_answer_before_tensorflow_is_imported():
    """In a process of its own, as this one has imported it."""
    code = """
import sys
from flowers_tpu.commands import cli
for name in cli.COMMANDS:
    for flag in ("--help", "--no_such_flag"):
        print(name, cli.main(name, [flag]), file=sys.stderr)
print("tensorflow" in sys.modules, "numpy" in sys.modules, file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.startswith("Trains")
    lines = [line for line in result.stderr.splitlines() if ":" not in line]
    assert lines == [
        *(f"{name} {code}" for name in cli.COMMANDS for code in (0, 2)),
        "False False",
    ]


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--no_such_flag=1"], "no_such_flag"),
        (["--seed=x"], "seed"),
        (["--epochs=1.5"], "epochs"),
        (["--optimizer=adamm"], "optimizer"),
        (["--image_size=0"], "--image_size=0: must be at least 1"),
        (["--crop_min=2"], "--crop_min=2.0: must be above 0 and at most 1"),
        (["--learning_rate=nan"], "--learning_rate=nan: must be a finite number"),
        (["--saturation_lower=2", "--saturation_upper=1"], "--saturation_upper=1.0"),
        (["--require_tpu"], "--require_tpu needs --tpu"),
        (["--flagfile=nowhere.flags"], "nowhere.flags"),
        (["train"], "unexpected argument 'train'"),
        (["--summary", "false"], "unexpected argument 'false'"),
        (["--seed"], "seed"),
        (["--seed=x"], "--seed=x: expected a whole number"),
        (["--learning_rate=x"], "--learning_rate=x: expected a number"),
        (["--report=maybe"], "--report=maybe: expected true or false"),
        (["--noreport=true"], "--noreport=true: takes no value; write --noreport, or --report="),
        (["--nosummary=false"], "--nosummary=false: takes no value"),
        (["--run_dir=a\0b"], r"'--run_dir=a\x00b': holds a null byte"),
    ],
)
def test_a_wrong_request_returns_2_with_one_line(got, capsys, arguments, named):
    assert call("train", *arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("train: ")
    assert named in message
    assert message.count("\n") == 1
    assert not got


@pytest.mark.parametrize(
    ("error", "code"),
    [(RequestError("no!"), 2), (RunError("no!"), 1), (StoppedError("no!"), 143)],
)
def test_errors_of_the_command_have_their_exit_codes(monkeypatch, capsys, error, code):
    def command(spec):
        raise error

    monkeypatch.setattr(train, "train", command)
    assert call("train") == code
    assert capsys.readouterr().err == "train: no!\n"


def test_ctrl_c_returns_130(monkeypatch):
    def command(spec):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", command)
    assert call("train") == 130


def test_other_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(train, "train", lambda spec: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("train")


# What the command gets


def test_the_command_gets_the_specification(got):
    spec = spec_of("--seed=3", "--nosummary", "--tpu", "local", got=got)
    assert spec == Spec.of(seed=3, tpu="local", run_dir="runs/default")


def test_flags_of_this_process_are_taken_if_none_are_given(got, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", "--seed=4"])
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: None)
    with logging_put_back():
        assert cli.main("train") == 0
    assert got == [(Spec.of(seed=4, run_dir="runs/default"),)]


def test_one_call_leaves_nothing_to_the_next(got):
    """Flags are values of the call, not of the process."""
    before = set(absl_flags.FLAGS)
    assert call("train", "--seed=3", "--run_dir=a") == 0
    assert call("train", "--run_dir=a") == 0
    assert call("explore", "--seed=5", "--class=rose") == 0
    assert [spec.training.seed for spec, *_ in got] == [3, 0, 5]
    assert set(absl_flags.FLAGS) == before and "seed" not in before


def test_verbosity(got, monkeypatch):
    found = []
    monkeypatch.setattr(train, "train", lambda spec: found.append(logging.get_verbosity()))
    for flag in ([], ["--verbosity=-2"], ["--verbosity=1"]):
        assert call("train", *flag) == 0
    assert found == [logging.WARNING, logging.ERROR, logging.DEBUG]


def test_warnings_are_lines_that_do_not_break_a_bar(got, monkeypatch, capsys):
    """Just their text, written as bars want it, and nothing of absl's own about flags."""
    monkeypatch.setattr(terminal.tqdm, "external_write_mode", bars := mock.MagicMock())
    monkeypatch.setattr(train, "train", lambda spec: logging.warning("%d photos", 3))
    assert call("train") == 0
    assert capsys.readouterr() == ("", "3 photos\n")
    assert bars.call_count


def test_flags_that_are_not_given_are_those_of_the_run(got, tmp_path):
    """The flagfile gives --epochs, though with its default, and the run has another."""
    (tmp_path / "some.flags").write_text("--epochs=20\n")
    data = write_data_set(tmp_path / "data", train=4, val=4, test=1)
    run = finished_runs.write_run(tmp_path / "run", data, seed=9, epochs=3)
    code = call(
        "evaluate",
        f"--run_dir={tmp_path}/run",
        "--precision=bfloat16",
        f"--flagfile={tmp_path}/some.flags",
    )
    assert code == 0
    expected = run.recipe.spec.changed(precision="bfloat16", epochs=20)
    assert got == [(expected, EvaluateOptions())]
    assert (got[0][0].training.seed, got[0][0].model.backbone) == (9, "small_cnn")


def test_a_folder_without_a_run_is_refused(got, tmp_path, capsys):
    assert call("evaluate", f"--run_dir={tmp_path}") == 2
    assert f"evaluate: --run_dir={tmp_path}: no run there" in capsys.readouterr().err
    assert not got


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "runs/default"),
        (["--flagfile={}/quick.flags"], "runs/quick"),
        (["-flagfile={}/quick.flags"], "runs/quick"),
        (["--flagfile", "{}/quick.flags"], "runs/quick"),
        (["--flagfile={}/quick.flags", "--seed=1"], "runs/quick"),
        (["--flagfile={}/quick.flags", "--flagfile={}/v1.2.flags"], "runs/v1.2"),
        (["--flagfile={}/quick.flags", "--run_dir=elsewhere"], "elsewhere"),
        (["--flagfile={}/placed.flags"], "placed/here"),
    ],
)
def test_runs_are_named_after_their_flagfile(got, tmp_path, arguments, expected):
    (tmp_path / "quick.flags").write_text("# a comment\n--epochs=7\n")
    (tmp_path / "v1.2.flags").write_text("--epochs=8\n")
    (tmp_path / "placed.flags").write_text("--run_dir=placed/here\n")
    spec = spec_of(*(argument.format(tmp_path) for argument in arguments), got=got)
    assert spec.run.run_dir == expected


def test_what_comes_later_wins(got, tmp_path):
    (tmp_path / "a.flags").write_text("--epochs=7\n--seed=7\n")
    spec = spec_of("--seed=1", f"--flagfile={tmp_path}/a.flags", "--epochs=2", got=got)
    assert (spec.training.seed, spec.schedule.epochs) == (7, 2)


def test_the_flagfile_of_a_run_gives_the_same_run(got, tmp_path):
    given = Spec.of(seed=3, class_weights="balanced", data_dir="a folder", report=False, hue=0.25)
    (tmp_path / "flags.txt").write_text(given.to_flagfile())
    spec = spec_of(f"--flagfile={tmp_path}/flags.txt", "--run_dir=", got=got)
    assert spec == given.changed(run_dir="runs/flags")


# A command's own flags


def test_a_command_may_have_flags_of_its_own(got):
    assert call("explore", "--class=rose", "--seed=3", "--show") == 0
    spec = Spec.of(seed=3, run_dir="runs/default")
    assert got == [(spec, ExploreOptions(class_="rose", show=True))]


def test_a_command_may_take_no_run_but_arguments(got):
    assert call("compare", "a", "b", "--output=c.png") == 0
    assert got == [(CompareOptions("c.png"), ["a", "b"])]


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("compare", [], "compare: expected the folders of two or more runs"),
        ("compare", ["a", "--seed=1"], "seed"),
        (
            "make_tfrecords",
            ["--photos=a", "--output_dir=b", "--quality=101"],
            "--quality=101: must",
        ),
        ("explore", ["--class=rose", "a"], "unexpected argument 'a'"),
    ],
)
def test_a_command_s_own_flags_are_checked(got, capsys, name, arguments, named):
    assert call(name, *arguments) == 2
    assert named in capsys.readouterr().err
    assert not got


# python -m flowers_tpu


def test_the_first_argument_names_the_command(got, monkeypatch):
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: None)
    with logging_put_back():
        assert cli.choose(["train", "--seed=3"]) == 0
    assert got == [(Spec.of(seed=3, run_dir="runs/default"),)]


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 2), (["trian", "--seed=3"], 2), (["--help"], 0), (["-h"], 0)]
)
def test_without_a_command_all_are_named(got, capsys, arguments, code):
    assert cli.choose(arguments) == code
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m flowers_tpu COMMAND")
    assert ", ".join(cli.COMMANDS) in out
    assert not got


def test_a_null_byte_in_a_flagfile_is_named(got, tmp_path, capsys):
    (tmp_path / "odd.flags").write_text("--data_dir=a\0b\n")
    assert call("train", f"--flagfile={tmp_path}/odd.flags") == 2
    assert r"'a\x00b': holds a null byte" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "says"), [([], True), (["--data_dir=gone"], False)])
def test_a_folder_of_data_that_only_the_run_names(monkeypatch, tmp_path, capsys, given, says):
    """A run's --data_dir is relative to where it was trained."""
    run = finished_runs.write_run(tmp_path / "run", write_data_set(tmp_path / "d"))
    saved = run.folder.read_json("config.json")
    saved["flags"]["data_dir"] = "gone"
    run.folder.write_json("config.json", saved)
    monkeypatch.chdir(tmp_path)
    assert call("evaluate", f"--run_dir={tmp_path}/run", *given) == 2
    message = capsys.readouterr().err
    assert f"--data_dir=gone: no such folder (a path from {tmp_path})" in message
    assert ("the flag is the run's" in message) == says
