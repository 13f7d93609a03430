import pytest

from flowers_tpu.benchmarks.options import BenchmarkOptions
from flowers_tpu.system.errors import RequestError


def test_lists_are_taken_apart():
    chosen = BenchmarkOptions(
        measure="step, loop", against="torch,", precision_sweep="bfloat16,float32"
    )
    assert chosen.measures == ["step", "loop"]
    assert chosen.sides == ["torch"]
    assert chosen.precisions == ["bfloat16", "float32"]
    assert BenchmarkOptions(batch_sweep="16, 4,8,4").numbers("batch_sweep") == [4, 8, 16]
    assert BenchmarkOptions(measure="step,step").measures == ["step"]
    assert BenchmarkOptions(measure="", batch_sweep="4", precision_sweep="float32").sweeps == [
        "precision_sweep",
        "batch_sweep",
    ]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"measure": "step,lop"}, "--measure=lop: is unknown; there are: step, input"),
        ({"against": "jax"}, "--against=jax: is unknown; there are: keras_fit"),
        ({"measure": " ,"}, "--measure: names nothing; there are: step, input"),
        (
            {"measure": "step,evaluation", "against": "keras_fit,notebook"},
            "--against=notebook: is not met in --measure=step,evaluation, but in input, loop, mem",
        ),
        ({"measure": "loop", "against": "torch"}, "--against=torch: is not met .* but in step;"),
        ({"precision_sweep": "float8"}, "--precision_sweep=float8: is unknown"),
        ({"replicas_sweep": "1,two"}, "--replicas_sweep=1,two: .* found two"),
        ({"batch_sweep": "0,1"}, "--batch_sweep=0,1: .* found 0"),
        ({"image_size_sweep": "-32"}, "--image_size_sweep=-32: .* found -32"),
        ({"rounds": 0}, "--rounds=0: must be at least 1"),
        ({"many_photos": 0}, "--many_photos=0: must be at least 1"),
        ({"seconds_per_round": 0.0}, "--seconds_per_round=0.0: must be above 0"),
        ({"seconds_per_round": float("nan")}, "--seconds_per_round=nan: must be a finite number"),
    ],
)
def test_wrong_values_are_refused_by_name(values, message):
    with pytest.raises(RequestError, match=message):
        BenchmarkOptions(**values)
