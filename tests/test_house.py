"""The house holds: who may import whom, who sees a whole specification, where a field stands."""

import ast
import collections
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowers_tpu.commands import cli
from flowers_tpu.options import fields_of, flag_name
from flowers_tpu.runs.spec import FIELDS, PARTS, Resolved
from flowers_tpu.training.plan import Plan

ROOT = Path(__file__).parents[1]
PACKAGE = "flowers_tpu"

# From the top down: a room imports from those below its own line.
FLOORS = (
    {"__main__"},
    {"commands"},
    {"benchmarks", "tpu"},
    {"runs"},
    {"monitor", "reports"},
    {"evaluation", "convert", "example_data"},
    {"training"},
    {"models", "data"},
    {"options", "system"},
    {"doctor"},
)
NEIGHBOURS = {
    ("monitor", "reports"): "the pictures of a running model are drawn as those of its report",
    ("options", "system"): "what is wrong with a value is a RequestError",
    ("system", "options"): "the devices that are asked for are options too",
}
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in sorted(rooms)}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): ast.parse(path.read_text("utf-8"))
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}


def imports_of(tree: ast.AST, *, late: bool = True) -> Iterator[str]:
    """The modules that a source imports; those within functions only if `late`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in SOURCES else node.module for name in names)
        elif late or not isinstance(node, ast.FunctionDef):
            yield from imports_of(node, late=late)


def room(module: str) -> str:
    """`data` of `flowers_tpu.data.augment.apply`."""
    return [*module.split("."), ""][1]


def inner(modules) -> set[str]:
    """Those of the package's rooms among some modules."""
    return {module for module in modules if module.startswith(f"{PACKAGE}.")}


# Who may import whom


def test_what_the_test_reads():
    tree = ast.parse(
        "import numpy as np\n"
        "if True:\n    from flowers_tpu.data import order\n"
        "def late():\n    from flowers_tpu.data.order import epoch_indices\n"
    )
    assert list(imports_of(tree)) == ["numpy", "flowers_tpu.data.order", "flowers_tpu.data.order"]
    assert list(imports_of(tree, late=False)) == ["numpy", "flowers_tpu.data.order"]
    assert room("flowers_tpu.data.order") == "data" and room("flowers_tpu") == ""
    assert inner(["numpy", "flowers_tpu.x", "flowers_tpu"]) == {"flowers_tpu.x"}


def test_every_room_has_its_floor():
    assert {room(module) for module in SOURCES} - {""} == FLOOR.keys()


@pytest.mark.parametrize("here", FLOOR)
def test_imports_go_down_only(here):
    wrong = [
        f"{module} imports {other}"
        for module in SOURCES
        if room(module) == here
        for other in inner(imports_of(SOURCES[module]))
        if room(other) != here
        and FLOOR[room(other)] <= FLOOR[here]
        and (here, room(other)) not in NEIGHBOURS
    ]
    assert not wrong


def test_what_neighbours_may_is_needed():
    used = {
        (room(module), room(other))
        for module, tree in SOURCES.items()
        for other in inner(imports_of(tree))
    }
    assert used >= NEIGHBOURS.keys()
    assert all(FLOOR[here] == FLOOR[there] for here, there in NEIGHBOURS)


def test_no_imports_go_in_a_circle():
    left = {module: inner(imports_of(tree)) - {module} for module, tree in SOURCES.items()}
    while free := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in free}
    assert not left, "these, or what imports them, go in a circle"


def everything_imported_by(module: str) -> set[str]:
    """What comes along when a module is imported: also the packages it is in."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name in SOURCES:
            waiting += imports_of(SOURCES[name], late=False)
            waiting += [name.rpartition(".")[0]] if "." in name else []
    return found


@pytest.mark.parametrize("module", [name for name in SOURCES if name.endswith(".options")])
def test_options_are_light(module):
    others = {name.partition(".")[0] for name in everything_imported_by(module)} - {PACKAGE}
    assert others <= sys.stdlib_module_names


def test_the_command_line_is_light():
    """`--help` and wrong flags answer at once."""
    others = {name.partition(".")[0] for name in everything_imported_by(f"{PACKAGE}.commands.cli")}
    assert others - sys.stdlib_module_names <= {PACKAGE, "absl", "tqdm"}


def test_the_doctor_stands_alone():
    """It runs where nothing is installed; its neighbours would import what is missing there."""
    found = {
        other
        for module, tree in SOURCES.items()
        if room(module) == "doctor"
        for other in imports_of(tree)
    }
    ours = {other for other in found if other.partition(".")[0] == PACKAGE}
    assert ours and {room(other) for other in ours} == {"doctor"}
    assert {other.partition(".")[0] for other in found - ours} <= sys.stdlib_module_names
    script = ast.parse((ROOT / "scripts/doctor.py").read_text("utf-8"))
    assert set(imports_of(script)) == {"os", "sys", f"{PACKAGE}.doctor.main"}
    assert everything_imported_by(PACKAGE) <= {PACKAGE, "os", "sys"}


def test_training_knows_no_terminal_and_no_signals():
    found = {
        other
        for module, tree in SOURCES.items()
        if room(module) == "training"
        for other in imports_of(tree)
    }
    assert "flowers_tpu.system.errors" in found
    assert not found & {"flowers_tpu.system.terminal", "flowers_tpu.system.signals", "signal"}
    assert not found & {"tqdm", "absl.flags"}


def test_at_the_root_is_only_what_every_room_stands_on():
    files = {path.name for path in (ROOT / PACKAGE).glob("*.py")}
    assert files == {"__init__.py", "__main__.py", "options.py"}


def test_a_script_is_one_call():
    scripts = set((ROOT / "scripts").glob("*.py")) - {ROOT / "scripts/doctor.py"}
    for path in sorted(scripts):
        tree = ast.parse(path.read_text("utf-8"))
        assert set(imports_of(tree)) == {"sys", "flowers_tpu.commands.cli"}, path
        assert ast.unparse(tree.body[-1].body[0]) == f"sys.exit(cli.main('{path.stem}'))", path
    assert {path.stem for path in scripts} == cli.COMMANDS.keys()


# Who sees a whole specification


def annotations(tree: ast.AST) -> Iterator[str]:
    """The names in the annotations of a source: of parameters, results and fields."""
    for node in ast.walk(tree):
        for part in ("annotation", "returns"):
            if (annotation := getattr(node, part, None)) is not None:
                for word in ast.walk(annotation):
                    yield getattr(word, "id", None) or getattr(word, "attr", None) or ""
                    yield getattr(word, "value", "") if isinstance(word, ast.Constant) else ""


def test_what_is_an_annotation():
    code = "def f(a: Spec | None, b: 'Plan') -> list[spec.Other]: ...\nclass C:\n  d: int = 3\n"
    assert set(annotations(ast.parse(code))) >= {"Spec", "Plan", "Other", "list", "int"}


MAKING_ONE = dict.fromkeys(
    ("flowers_tpu.benchmarks.memory", "flowers_tpu.benchmarks.two_workers"),
    "a fresh process gets its flags as text",
)


def test_only_commands_and_runs_see_a_whole_specification():
    taking = {room(module) for module, tree in SOURCES.items() if "Spec" in annotations(tree)}
    assert taking == {"commands", "runs"}
    importing = {m for m, tree in SOURCES.items() if f"{PACKAGE}.runs.spec" in imports_of(tree)}
    others = {module for module in importing if room(module) not in taking}
    assert others == MAKING_ONE.keys()


# Where a field stands


def names(kind) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_every_flag_is_in_one_part():
    counts = collections.Counter(field.name for field in fields_of(PARTS.values()))
    assert [name for name, count in counts.items() if count > 1] == []
    assert counts.keys() == FIELDS.keys()


def test_no_field_is_both_asked_for_and_worked_out():
    """`Plan` holds the parts of a specification that it needs as they are."""
    assert not names(Resolved) & FIELDS.keys()
    assert not names(Plan) & FIELDS.keys()
    assert names(Plan) & PARTS.keys() == {"schedule", "training"}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_no_command_has_two_flags_of_one_name(command):
    flags = collections.Counter(flag_name(field) for field in fields_of(cli._kinds(command)))
    assert flags and max(flags.values()) == 1
    assert not flags.keys() & {"flagfile", "verbosity", "help"}


# Nobody reaches into another module


def assigned(tree: ast.AST) -> Iterator[str]:
    """What a source assigns to, or deletes, in what it imports: `training.loop.fit`."""
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            target = node
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("setattr", "delattr"):
            target = node.args[0]
        else:
            continue
        while isinstance(target, ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name) and target.id in bound:
            yield ast.unparse(node)


def test_what_is_an_assignment():
    code = (
        "import a.b\nfrom c import d as e\nimport f\n"
        "a.b.x = 1\ne.x: int = 2\nf.x += 3\nsetattr(e, 'y', 4)\nself.x = f.x\nf.z[0] = 5\n"
        "def g(h):\n    h.x = f.y\n    with k as e.w: del f.v\n"
    )
    found = {"a.b.x", "e.x", "f.x", "setattr(e, 'y', 4)", "e.w", "f.v"}
    assert set(assigned(ast.parse(code))) == found


def test_nothing_assigns_into_another_module():
    folders = ("flowers_tpu", "scripts", "tests/benchmarks")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    wrong = {path: list(assigned(ast.parse(path.read_text("utf-8")))) for path in paths}
    assert not {str(path): found for path, found in wrong.items() if found}
