import pytest

from flowers_tpu.benchmarks import peaks
from flowers_tpu.errors import RequestError


@pytest.mark.parametrize(
    "name, peak",
    [
        *(("v3", 61.5e12), ("v3-8", 61.5e12), ("v3-128", 61.5e12), ("v3:2x2", 61.5e12)),  # a core
        *(("v4-8", 275e12), ("v5e-4", 197e12), ("v5litepod-16", 197e12), ("v6e-1", 918e12)),
    ],
)
def test_of_a_tpu_the_generation_tells(name, peak):
    assert peaks.of_tpu(name) == peak


@pytest.mark.parametrize("name", ["v33-8", "vv3", "3", "tpu", "", "v5-8"])
def test_an_unknown_tpu_is_refused(name):
    with pytest.raises(RequestError, match=f"--accelerator={name}: is unknown; there are: v2, v3"):
        peaks.of_tpu(name)


@pytest.mark.parametrize(
    "name, peak",
    [
        *(("NVIDIA A100-SXM4-40GB", 312e12), ("NVIDIA A100 80GB PCIe", 312e12)),
        *(("NVIDIA L4", 121e12), ("NVIDIA L40S", 362e12), ("Tesla T4", 65e12)),
        *(("Tesla V100-SXM2-16GB", 125e12), ("NVIDIA A10G", 70e12)),
        *(("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 80GB HBM3", 989e12)),
        *(("NVIDIA RTX A1000", None), ("NVIDIA L40", None), ("NVIDIA T400 4GB", None)),
        *(("NVIDIA GeForce RTX 3060", None), ("Quadro RTX 4000", None), ("", None)),
    ],
)
def test_of_a_gpu_whole_words_of_its_name_tell(name, peak):
    assert peaks.of_gpu(name) == peak
