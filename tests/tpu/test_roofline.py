import pytest

from flowers_tpu.system import tpu_slices
from flowers_tpu.tpu import roofline

(V3,) = tpu_slices.parse_slices("v3:2x2")


def of(flops, size, gradients=0.0):
    return roofline.roofline(
        V3,
        flops=flops,
        bytes_accessed=size,
        all_reduce_bytes=gradients,
        batch_size=16,
        batch_bytes=12e6,
    )


def test_a_step_that_computes():
    # 6.15e12 FLOP at 61.5e12 a second are 0.1 s; 9 GB at 450 GB/s are 0.02 s.
    bounds = of(6.15e12, 9e9)
    assert bounds.limit == "compute"
    assert bounds.seconds == bounds.compute_seconds == pytest.approx(0.1)
    assert bounds.memory_seconds == pytest.approx(0.02)
    assert bounds.intensity == pytest.approx(6150 / 9)
    assert bounds.images_per_second_per_replica == pytest.approx(160)
    assert bounds.images_per_second == pytest.approx(1280)
    assert bounds.input_bytes_per_second == pytest.approx(8 * 12e6 / 0.1)


def test_a_step_that_moves():
    bounds = of(6.15e11, 90e9)
    assert bounds.limit == "memory"
    assert bounds.seconds == pytest.approx(0.2)
    assert bounds.images_per_second == pytest.approx(8 * 16 / 0.2)


def test_the_ridge_parts_them():
    assert of(1, 1).ridge == pytest.approx(61.5e12 / 450e9)
    for factor, limit in ((0.99, "memory"), (1.01, "compute")):
        assert of(factor * 61.5e12, 450e9).limit == limit


def test_gradients_on_the_interconnect():
    # Four chips: each sends 2 * 3/4 of 328 GB over links of 328 GB/s in all.
    assert roofline.all_reduce_seconds(V3, 328e9) == pytest.approx(1.5)
    bounds = of(61.5e12, 450e9, gradients=328e9)
    assert (bounds.limit, bounds.seconds) == ("interconnect", pytest.approx(1.5))


def test_vgg16_on_a_v3():
    """The figures of a step of 16 photos at 512 px, worked out apart from this code."""
    bounds = of(7.58e12, 31.8e9, gradients=59e6)
    assert bounds.compute_seconds == pytest.approx(0.12325, rel=1e-3)
    assert bounds.memory_seconds == pytest.approx(0.07067, rel=1e-3)
    assert bounds.images_per_second == pytest.approx(1038.5, rel=1e-3)


def test_one_chip_has_nobody_to_send_to():
    (alone,) = tpu_slices.parse_slices("v5e-1")
    assert roofline.all_reduce_seconds(alone, 1e9) == 0
