import pytest

from flowers_tpu.system import tpu_slices
from flowers_tpu.system.errors import RequestError

GIB = 2**30


def test_the_cores_of_a_v3_share_their_chip():
    (v3,) = tpu_slices.parse_slices("v3:2x2")
    assert (v3.chips, v3.replicas, v3.accelerator) == (4, 8, "v3-8")
    assert (v3.hbm, v3.flops, v3.hbm_bandwidth) == (16 * GIB, 61.5e12, 450e9)
    assert v3.generation.interconnect == 328e9


@pytest.mark.parametrize(
    ("name", "chips", "replicas", "hbm", "accelerator"),
    [
        ("v2", 4, 8, 8, "v2-8"),
        ("v4", 4, 4, 32, "v4-8"),  # both cores of a chip are one device
        ("v5e", 8, 8, 16, "v5litepod-8"),
        ("v6e", 8, 8, 32, "v6e-8"),
        ("v4:2x2x2", 8, 8, 32, "v4-16"),
        ("v3:4x4", 16, 32, 16, "v3-32"),
        ("v5e:1x1", 1, 1, 16, "v5litepod-1"),
    ],
)
def test_slices(name, chips, replicas, hbm, accelerator):
    (slice_,) = tpu_slices.parse_slices(name)
    assert (slice_.chips, slice_.replicas, slice_.hbm) == (chips, replicas, hbm * GIB)
    assert slice_.accelerator == accelerator
    # What a program may use is a little less than all.
    assert 0.93 * slice_.hbm < slice_.available < slice_.hbm


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        *(("v2-8", 1), ("v2-32", 4), ("v3-8", 1), ("v3-32", 4), ("v4-8", 1), ("v4-16", 2)),
        # Eight of these chips are the most of one machine, but larger slices have four on each.
        *(("v5e-1", 1), ("v5e-4", 1), ("v5e-8", 1), ("v5e-16", 4), ("v6e-8", 1), ("v6e-16", 4)),
    ],
)
def test_hosts(name, hosts):
    (slice_,) = tpu_slices.parse_slices(name)
    assert slice_.hosts == hosts


def test_several_names_and_the_ways_to_say_one():
    slices = tpu_slices.parse_slices("v3-8, v5e:2x2,v3,v3:2x2,v5litepod-4,v5e-4,v6e-8,v6e")
    assert [slice_.topology for slice_ in slices] == ["v3:2x2", "v5e:2x2", "v6e:2x4"]


@pytest.mark.parametrize("text", ["v3:3x3", "v9", "v3:2x2,tpu", "", ","])
def test_unknown_names_list_the_known(text):
    with pytest.raises(RequestError, match=r"--topology=.*v3:2x2 \(v3-8\).*v6e:2x4 \(v6e-8\)"):
        tpu_slices.parse_slices(text)


def test_names_are_unambiguous():
    names = [name for s in tpu_slices.SLICES for name in (s.topology, s.accelerator)]
    assert len(set(names)) == len(names)
