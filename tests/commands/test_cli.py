import dataclasses
import subprocess
import sys
import types

import pytest
from absl import flags, logging

import flowers_tpu
from flowers_tpu.commands import cli
from flowers_tpu.options import Config, define_flags, knob
from flowers_tpu.system.errors import RequestError, RunError, StoppedError

NAMES = [field.name for field in dataclasses.fields(Config)]


@dataclasses.dataclass(frozen=True)
class Options:
    output_dir: str = knob("", "Own", "Where it goes.")
    class_: str = knob("", "Own", "Which one.")
    quality: int = knob(95, "Own", "How well.")

    def __post_init__(self):
        if self.quality > 100:
            raise RequestError(f"--quality={self.quality}: must be at most 100")


OPTIONS = ["output_dir", "class", "quality"]


@pytest.fixture(autouse=True)
def _flags_are_forgotten():
    """Flags may be defined once in a process; each test begins without them."""
    yield
    flags.FLAGS.unparse_flags()
    flags.FLAGS.remove_flag_values([name for name in NAMES + OPTIONS if name in flags.FLAGS])


@pytest.fixture
def parse():
    define_flags()
    return lambda *arguments: (
        cli.parse(["scripts/train.py", *arguments], "Trains.", [Config]).config
    )


@pytest.fixture
def run(monkeypatch):
    """Runs a script with flags and a command in place of the experiment's."""
    handler = logging.get_absl_handler()
    monkeypatch.setattr(logging, "use_absl_handler", lambda: None)
    monkeypatch.setattr(handler, "setFormatter", lambda formatter: None)

    def run(*arguments, command=lambda *given, **options: None, with_flags_of_run=None, **options):
        experiment = types.SimpleNamespace(train=command, with_flags_of_run=with_flags_of_run)
        monkeypatch.setitem(sys.modules, "flowers_tpu.experiment", experiment)
        monkeypatch.setattr(flowers_tpu, "experiment", experiment, raising=False)
        monkeypatch.setattr(sys, "argv", ["scripts/train.py", *arguments])
        cli.run("experiment.train", "Trains.\n\nMore of it.", **options)

    return run


def exit_code(run, *arguments, **options):
    with pytest.raises(SystemExit) as caught:
        run(*arguments, **options)
    return caught.value.code


# Help


@pytest.mark.parametrize("flag", ["--help", "-h", "-help", "--helpfull"])
def test_help_names_every_flag_and_its_default(run, capsys, flag):
    assert exit_code(run, "--no_such_flag", flag) == 0
    text = capsys.readouterr().out
    assert text.startswith("Trains.\n\nMore of it.\n")
    lines = text.splitlines()
    for field in dataclasses.fields(Config):
        name = f"--[no]{field.name} " if field.type is bool else f"--{field.name}="
        (line,) = (line for line in lines if line.startswith(f"  {name}"))
        assert line.endswith(f"(default {field.default!r})")
        assert " ".join(field.metadata["help"].split()) in " ".join(text.split())
    assert "adam|adamw" in text
    assert "--flagfile" in text
    assert max(len(line) for line in lines) <= 100


def test_help_and_wrong_flags_answer_before_tensorflow_is_imported():
    code = """
import sys
from flowers_tpu import command_line
for flag in ("--help", "--seed=x"):
    sys.argv = ["scripts/train.py", flag]
    try:
        cli.run("experiment.train", "Trains.")
    except SystemExit as stop:
        print(stop.code, "tensorflow" in sys.modules, file=sys.stderr)
    from absl import flags
    flags.FLAGS.remove_flag_values([n for n in {names} if n in flags.FLAGS])
""".replace("{names}", repr(NAMES))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.startswith("Trains.")
    assert result.stderr.startswith("0 False\ntrain.py: "), result.stderr
    assert result.stderr.endswith("\n2 False\n"), result.stderr


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
    ],
)
def test_a_wrong_request_ends_with_2_and_one_line(run, capsys, arguments, named):
    assert exit_code(run, *arguments, command=pytest.fail) == 2
    message = capsys.readouterr().err
    assert message.startswith("train.py: ")
    assert named in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(RequestError("no!"), 2), (RunError("no!"), 1), (StoppedError("no!"), 143)],
)
def test_errors_of_the_command_have_their_exit_codes(run, capsys, error, code):
    def command(config):
        raise error

    assert exit_code(run, command=command) == code
    assert capsys.readouterr().err == "train.py: no!\n"


def test_ctrl_c_ends_with_130(run):
    def command(config):
        raise KeyboardInterrupt

    assert exit_code(run, command=command) == 130


def test_other_errors_keep_their_traceback(run):
    def command(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(command=command)


# What the command gets


def test_the_command_gets_the_config(run):
    received = []
    run("--seed=3", "--nosummary", "--tpu", "local", command=received.append)
    assert received == [Config(seed=3, tpu="local", run_dir="runs/default")]


def test_flags_that_are_not_given_are_those_of_the_run(run, tmp_path):
    flagfile = tmp_path / "some.flags"
    flagfile.write_text("--epochs=20\n")
    received = []

    def with_flags_of_run(config, given):
        received.append((config.run_dir, given))
        return Config(seed=9)

    run(
        *("--run_dir=runs/old", "--image_size=64", f"--flagfile={flagfile}"),
        command=received.append,
        with_flags_of_run=with_flags_of_run,
        on_existing_run=True,
    )
    # The flagfile gives --epochs, though with its default.
    assert received == [("runs/old", {"run_dir", "image_size", "epochs"}), Config(seed=9)]


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
def test_runs_are_named_after_their_flagfile(parse, tmp_path, arguments, expected):
    (tmp_path / "quick.flags").write_text("# a comment\n--epochs=7\n")
    (tmp_path / "v1.2.flags").write_text("--epochs=8\n")
    (tmp_path / "placed.flags").write_text("--run_dir=placed/here\n")
    config = parse(*(argument.format(tmp_path) for argument in arguments))
    assert config.run_dir == expected


def test_what_comes_later_wins(parse, tmp_path):
    (tmp_path / "a.flags").write_text("--epochs=7\n--seed=7\n")
    config = parse("--seed=1", f"--flagfile={tmp_path}/a.flags", "--epochs=2")
    assert (config.seed, config.epochs) == (7, 2)


# A script's own flags


def test_a_script_may_have_flags_of_its_own(run):
    received = []

    def command(config, **options):
        received.append((config, options))

    run("--class=rose", "--seed=3", command=command, options=Options)
    config = Config(seed=3, run_dir="runs/default")
    assert received == [(config, {"output_dir": "", "class_": "rose", "quality": 95})]


def test_a_script_may_take_no_run_but_arguments(run):
    received = []

    def command(arguments, **options):
        received.append((arguments, options))

    run("a", "b", "--quality=3", command=command, options=Options, takes_config=False,
        arguments="RUN RUN")  # fmt: skip
    assert received == [(["a", "b"], {"output_dir": "", "class_": "", "quality": 3})]
    assert "seed" not in flags.FLAGS


@pytest.mark.parametrize(
    ("arguments", "named"),
    [([], "expected RUN"), (["a", "--quality=101"], "--quality=101: must be at most 100"),
     (["a", "--seed=1"], "seed")],
)  # fmt: skip
def test_a_script_s_own_flags_are_checked(run, capsys, arguments, named):
    given = {"options": Options, "takes_config": False, "arguments": "RUN"}
    assert exit_code(run, *arguments, command=pytest.fail, **given) == 2
    assert named in capsys.readouterr().err


def test_the_help_begins_with_the_script_s_own_flags(run, capsys):
    assert exit_code(run, "--help", options=Options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[4] == "Own:"
    assert "  --class=str  (default '')" in lines
    assert lines.index("Own:") < lines.index("Devices:")
