"""A specification as given, what it comes to, and how both are read from a run's folder."""

import dataclasses
import json

import pytest

from flowers_tpu.runs.spec import Resolved, Spec, compiles_passes, read_saved, resolve
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts

CPU, TPU = Facts("CPU"), Facts("TPU", 8)
CONFIG_OF_0_1 = "tests/fixtures/run_of_0_1/stopped/config.json"
LATER = {  # than version 0.1: these have their defaults in its runs
    *("backbone_rate", "train_from", "ema_decay", "monitor", "from_run", "finish", "max_hours"),
    *("mixup", "cutmix", "mix_probability", "eval_image_size", "preprocessing"),
    *("jit", "memory_growth", "workers", "worker_index", "workers_seconds"),
    *("warmup_on", "accumulate_steps", "trivial_augment", "track"),
    *("folds", "fold", "fold_seed", "train_splits", "extra_data_dirs", "allow_near_copies"),
}


def saved(spec, resolved):
    """What `config.json` gives back."""
    value = {"flags": spec.flat(), "resolved": dataclasses.asdict(resolved)}
    return json.loads(json.dumps(value))


def test_what_is_left_open_depends_on_the_devices():
    spec = Spec.of(batch_size_per_replica=8)
    assert resolve(spec, TPU) == Resolved(64, "bfloat16", "device")
    assert resolve(spec, Facts("CPU", 2)) == Resolved(16, "float32", "host")
    given = Spec.of(global_batch_size=24, precision="bfloat16")
    assert resolve(given, Facts("CPU", 3)) == Resolved(24, "bfloat16", "host")


@pytest.mark.parametrize("begun", [None, Resolved(24, "float32", "host")])
def test_replicas_must_divide_the_global_batch(begun):
    spec = Spec.of() if begun else Spec.of(global_batch_size=24)
    with pytest.raises(
        RequestError, match="--global_batch_size=24: is not divisible by 5 replicas"
    ):
        resolve(spec, Facts("CPU", 5), begun)


def test_photos_are_mixed_in_pairs_on_each_replica():
    spec = Spec.of(global_batch_size=12, mixup=0.2)
    assert resolve(spec, Facts("CPU", 3)).photos_per_step == 12
    with pytest.raises(RequestError, match=r"each of 4 replicas gets 3 photos.*multiple of 8"):
        resolve(spec, Facts("CPU", 4))
    assert resolve(spec.changed(mixup=0.0), Facts("CPU", 4)).photos_per_step == 12


@pytest.mark.parametrize(("kind", "where"), [("CPU", "host"), ("GPU", "device"), ("TPU", "device")])
def test_photos_are_augmented_where_that_is_fastest(kind, where):
    assert resolve(Spec.of(), Facts(kind, 2)).augments_on == where
    for given in ("host", "device"):
        assert resolve(Spec.of(augment_on=given), Facts(kind, 2)).augments_on == given


def test_what_the_devices_cannot_do_is_refused_by_name():
    with pytest.raises(RequestError, match="--precision=float16: a TPU has no such arithmetic"):
        resolve(Spec.of(precision="float16"), TPU)
    synchronized = Spec.of(jit="on", batch_norm="synchronized")
    with pytest.raises(RequestError, match="--jit=on and --batch_norm=synchronized: replicas"):
        resolve(synchronized, CPU)
    resolve(synchronized.changed(jit="auto"), CPU)


@pytest.mark.parametrize(
    ("kind", "jit", "batch_norm", "compiles"),
    [
        ("GPU", "auto", "per_replica", True),
        ("GPU", "auto", "frozen", True),
        ("GPU", "auto", "synchronized", False),
        ("GPU", "off", "per_replica", False),
        ("CPU", "auto", "per_replica", False),
        ("CPU", "on", "per_replica", True),
        ("TPU", "auto", "per_replica", False),
        ("TPU", "on", "per_replica", False),  # whose steps are compiled as a whole
    ],
)
def test_what_xla_compiles(kind, jit, batch_norm, compiles):
    assert compiles_passes(Spec.of(jit=jit, batch_norm=batch_norm), Facts(kind)) == compiles


def test_a_run_that_continues_stays_what_it_was():
    begun = Resolved(48, "bfloat16", "device")
    assert resolve(Spec.of(), Facts("CPU", 3), begun) == begun


def test_exactly_leaves_nothing_open():
    spec, resolved = Spec.of(seed=3), Resolved(64, "bfloat16", "device")
    exact = spec.exactly(resolved)
    assert resolve(exact, Facts("CPU", 4)) == resolved
    open_ = ["global_batch_size", "precision", "augment_on"]
    assert sorted(name for name in exact.flat() if exact.flat()[name] != spec.flat()[name]) == (
        sorted(open_)
    )


def test_what_is_saved_is_read_back():
    spec, resolved = Spec.of(seed=3, classes="a b", lr_min=1 / 3), resolve(Spec.of(), TPU)
    assert read_saved(saved(spec, resolved)) == (spec, resolved)


def test_flags_that_came_later_have_their_defaults():
    before = saved(Spec.of(seed=3), resolve(Spec.of(), CPU))
    del before["flags"]["random_erasing"]
    assert read_saved(before) == (Spec.of(seed=3), resolve(Spec.of(), CPU))


def test_a_run_of_version_0_1_is_read():
    with open(CONFIG_OF_0_1) as file:
        written = json.load(file)
    spec, resolved = read_saved(written)
    came_later = {name: value for name, value in Spec.of().flat().items() if name in LATER}
    assert spec.flat() == written["flags"] | came_later and not LATER & set(written["flags"])
    assert (spec.training.seed, spec.schedule.epochs, spec.data.global_batch_size) == (3, 10, 0)
    assert resolved == Resolved(photos_per_step=8, arithmetic="float32", augments_on="host")


def test_what_another_version_wrote_is_named():
    later = saved(Spec.of(), resolve(Spec.of(), CPU))
    later["flags"]["swirl"] = later["flags"]["bend"] = 0.5
    later["resolved"]["workers"] = 2
    with pytest.raises(RequestError, match=r"does not know \(--bend, --swirl, workers\); use"):
        read_saved(later)


def test_options_that_do_not_exist_are_a_mistake_of_the_code():
    with pytest.raises(TypeError, match="no such options: swirl"):
        Spec.of(swirl=0.5)
