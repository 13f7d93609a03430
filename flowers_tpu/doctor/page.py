"""One page of plain text: what is there, what is wrong, what mends it."""

from __future__ import annotations

import textwrap
from typing import Any, Sequence

from flowers_tpu.doctor import rules

WIDTH = 96


def page(facts: Any, troubles: Sequence[rules.Trouble]) -> str:
    """Returns the page.

    Args:
        facts: of `facts.gather`, or recorded ones.
        troubles: of `rules.diagnose`.
    """
    wrong = [trouble for trouble in troubles if trouble.kind == rules.WRONG]
    notes = [trouble for trouble in troubles if trouble.kind == rules.NOTE]
    lines = ["flowers_tpu doctor: " + rules.place(facts), ""]
    lines += [_line(name, text) for name, text in _there(facts) if text]
    lines += ["", _count(len(wrong)), ""]
    shown: list[tuple[str, list[str]]] = []
    for number, trouble in enumerate(wrong, 1):
        lines += _entry(f"{number}. ", trouble, shown)
        shown.append((str(number), trouble.commands))
    if any(trouble.commands for trouble in wrong):
        lines += _wrapped(
            "Commands are for a shell, in the clone of this repository; in a cell of a "
            "notebook begin each with !, and restart its kernel afterwards.",
            "",
            "",
        )
        lines.append("")
    if notes:
        lines += ["To know:", ""]
        for trouble in notes:
            lines += _entry("- ", trouble, shown)
    return "\n".join(lines).rstrip() + "\n"


def _count(number: int) -> str:
    if not number:
        return "Nothing is wrong."
    return "Wrong, most important first:"


def _entry(mark: str, trouble: rules.Trouble, shown: list[tuple[str, list[str]]]) -> list[str]:
    """A trouble and its commands; those that were shown before are named only."""
    indent = " " * len(mark)
    lines = _wrapped(trouble.wrong, mark, indent)
    if trouble.source:
        lines += [indent + "By others' word: " + trouble.source]
    same = [number for number, commands in shown if commands == trouble.commands]
    if trouble.commands and same:
        lines.append(indent + f"Mended by the commands of {same[0]}.")
    else:
        lines += [indent + "  " + command for command in trouble.commands]
    return [*lines, ""]


def _wrapped(text: str, first: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _line(name: str, text: str) -> str:
    return "\n".join(_wrapped(text, name.ljust(14), " " * 14))


def _there(facts: Any) -> list[tuple[str, str]]:
    """(name, text) of what there is; an empty text if nothing is known."""
    python = facts.get("python") or {}
    return [
        ("Python", _joined(python.get("version"), python.get("system"), python.get("machine"))),
        ("TensorFlow", _tensorflow(facts)),
        ("Keras", _named(facts, ("keras", "tf-keras"), "none") + _first(facts)),
        ("with it", _named(facts, ("numpy", "ml-dtypes", "protobuf", "tensorflow-addons"), "")),
        ("libtpu", _named(facts, ("libtpu", "libtpu-nightly"), "none")),
        ("JAX, torch", _named(facts, ("jax", "jaxlib", "torch-xla"), "")),
        ("this package", _named(facts, ("flowers-tpu",), "not installed")),
        ("devices", _devices(facts)),
        ("GPUs", _gpus(facts)),
        ("variables", _variables(facts)),
        ("cores", _cores(facts.get("cores") or {})),
        ("memory", _memory(facts)),
        ("run folder", _folder(facts.get("run_folder") or {})),
        ("TPU", _tpu(facts)),
    ]


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _named(facts: Any, names: Sequence[str], otherwise: str) -> str:
    have = rules.packages(facts)
    return ", ".join(f"{n} {have[n]}" for n in names if n in have) or otherwise


def _tensorflow(facts: Any) -> str:
    there = _named(facts, rules.wheels(facts), "")
    if not there:
        return "none"
    found = rules.imported(facts)
    if "error" in found:
        return there + "; cannot be imported"
    if "tpu_kernels" not in found:
        return there
    return there + "; imports, with{} TPU operations".format("" if found["tpu_kernels"] else "out")


def _first(facts: Any) -> str:
    modules = facts.get("modules") or []
    return "; imported in this process: " + ", ".join(modules) if modules else ""


def _devices(facts: Any) -> str:
    there = facts.get("devices") or {}
    nodes = [*there.get("accel", []), *there.get("vfio", []), *there.get("nvidia", [])]
    chips = there.get("chips") or []
    said = f"{len(chips)} TPU chips on the bus" if chips else ""
    return _joined(" ".join(nodes), said) or ("none of a TPU or GPU" if there else "")


def _gpus(facts: Any) -> str:
    there = facts.get("gpus") or {}
    names = there.get("names") or []
    return _joined(*names, there.get("driver") and "driver " + there["driver"])


def _variables(facts: Any) -> str:
    said = rules.variables(facts)
    return " ".join(f"{name}={said[name][:40]}" for name in said)


def _cores(cores: Any) -> str:
    limit = cores.get("limit")
    return _joined(
        "{} usable of {}".format(cores.get("usable"), cores.get("machine")) if cores else "",
        f"the container's limit is {limit:g}" if limit else "",
    )


def _memory(facts: Any) -> str:
    there = facts.get("memory") or {}
    return _joined(
        *(f"{there[name] / (1 << 30):.1f} GB {word}" for name, word in
          (("total", "in all"), ("available", "available"), ("limit", "the container's limit"))
          if there.get(name))
    )  # fmt: skip


def _folder(there: Any) -> str:
    if not there:
        return ""
    writable = {True: "can be written to", False: "cannot be written to", None: "not looked at"}
    free = there.get("free")
    return _joined(
        there["path"],
        writable[there.get("writable")],
        "%.1f GB free" % (free / (1 << 30)) if free is not None else "",
    )


def _tpu(facts: Any) -> str:
    there = facts.get("tpu")
    if there is None:
        return "not started; --init does" if rules.on_tpu(facts) else ""
    return "started, {} cores".format(there["cores"]) if "cores" in there else "did not start"
