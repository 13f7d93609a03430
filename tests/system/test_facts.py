"""The record of the devices, from lists like those TensorFlow gives."""

import pytest

from flowers_tpu.system.facts import Facts, Listed, facts_of

CPU = Listed("CPU")
T4 = Listed("GPU", (7, 5), 15 * 2**30)
A100 = Listed("GPU", (8, 0), 40 * 2**30)
H100 = Listed("GPU", (9, 0), 80 * 2**30)

# What is listed, what else is known, and the record.
MACHINES = {
    "one T4": ([CPU, T4], {}, Facts("GPU", 1, 1, (7, 5), 15 * 2**30)),
    "two T4": ([CPU, T4, T4], {}, Facts("GPU", 2, 1, (7, 5), 15 * 2**30)),
    "one A100": ([CPU, A100], {}, Facts("GPU", 1, 1, (8, 0), 40 * 2**30)),
    "eight H100": ([CPU] + 8 * [H100], {}, Facts("GPU", 8, 1, (9, 0), 80 * 2**30)),
    "CPU only": ([CPU], {}, Facts("CPU", 1)),
    "CPU in 4": ([CPU], {"cpu_replicas": 4}, Facts("CPU", 4)),
    "TPU": ([CPU], {"tpu_replicas": 8}, Facts("TPU", 8)),
    "TPU of 4 hosts": ([], {"tpu_replicas": 32, "hosts": 4}, Facts("TPU", 32, 4)),
}


@pytest.mark.parametrize("name", MACHINES)
def test_the_record_of_a_machine(name):
    listed, known, expected = MACHINES[name]
    assert facts_of(listed, **known) == expected


# Machine: whether XLA compiles passes, auto's precision, where it augments, batches ahead, words.
FOLLOWS = {
    "one T4": (True, "float16", "device", True, "1 GPU replica"),
    "two T4": (True, "float16", "device", True, "2 GPU replicas"),
    "one A100": (True, "bfloat16", "device", True, "1 GPU replica"),
    "eight H100": (True, "bfloat16", "device", True, "8 GPU replicas"),
    "CPU only": (False, "float32", "host", False, "1 CPU replica"),
    "CPU in 4": (False, "float32", "host", False, "4 CPU replicas"),
    "TPU": (False, "bfloat16", "device", True, "8 TPU replicas"),
    "TPU of 4 hosts": (False, "bfloat16", "device", True, "32 TPU replicas"),
}


@pytest.mark.parametrize("name", MACHINES)
def test_what_follows_from_the_record(name):
    _, _, facts = MACHINES[name]
    follows = (facts.compiles_passes, facts.arithmetic, facts.augment_on, facts.fetches_ahead)
    assert (*follows, str(facts)) == FOLLOWS[name]


@pytest.mark.parametrize(
    ("capability", "arithmetic", "why"),
    [
        ((12, 0), "bfloat16", "compute capability 12.0"),
        ((8, 0), "bfloat16", "compute capability 8.0"),
        ((7, 5), "float16", "compute capability 7.5; bfloat16 comes with 8.0"),
        ((6, 0), "float16", "compute capability 6.0; bfloat16 comes with 8.0"),
        ((5, 2), "float32", "compute capability 5.2; float16 comes with 6.0"),
        (None, "float32", ""),
    ],
)
def test_the_arithmetic_of_a_gpu_and_why(capability, arithmetic, why):
    facts = Facts("GPU", compute_capability=capability)
    assert (facts.arithmetic, facts.why_arithmetic) == (arithmetic, why)


def test_a_cpu_that_is_asked_to_be_split_is_taken_before_gpus():
    assert facts_of([CPU, T4, T4], cpu_replicas=2) == Facts("CPU", 2)


def test_of_unequal_gpus_the_oldest_and_the_smallest_count():
    facts = facts_of([CPU, A100, T4, H100])
    assert (facts.replicas, facts.compute_capability, facts.memory) == (3, (7, 5), 15 * 2**30)
    # 10.0 comes after 9.0.
    assert facts_of([Listed("GPU", (10, 0)), H100]).compute_capability == (9, 0)


def test_what_tensorflow_does_not_say_is_none():
    assert facts_of([CPU, Listed("GPU")]) == Facts("GPU", 1, 1, None, None)
    assert facts_of([CPU, Listed("GPU"), T4]) == Facts("GPU", 2, 1, (7, 5), 15 * 2**30)
