"""`--find_batch` with a stand-in for the compiler."""

import pytest

from flowers_tpu.system.errors import RunError
from flowers_tpu.tpu.compiler import CompileError, CompileTimeoutError
from tests import photos
from tests.tpu.checking import (  # noqa: F401  (fixtures, by their names)
    GIB,
    compile_for_fixture,
    compile_named_fixture,
    figures,
    read_json,
    run,
    spec_of,
)


# As if a photo of a training step took 0.1 GiB and one of another 0.05.
def growing(name, batch):
    return figures(temporaries=batch * (0.1 if name == "fine-tuning" else 0.05) * GIB)


def test_the_largest_batch(compile_named, tmp_path, capsys):
    batches = compile_named(growing)
    content = run(tmp_path, find_batch=True)
    # 0.5 + 0.1 * 144 = 14.9 GiB fit into 15.48, but 15.7 do not.
    (slice_,) = content["slices"]
    assert slice_["largest_batch_size_per_replica"] == 144
    assert (
        "v3:2x2: --batch_size_per_replica=144 fits; 152 on a replica does not fit "
        "(needs 15.70 GiB of memory, but 15.48 are available)"
    ) in capsys.readouterr().out
    assert [s["batch_size_per_replica"] for s in slice_["steps"]] == [144] * 3
    assert slice_["flags"]["batch_size_per_replica"] == 16  # which was asked for
    assert slice_["flags"]["global_batch_size"] == 8 * 16
    assert len(batches) <= 3 * 4


def test_the_largest_batch_is_printed_as_the_flag_in_use(compile_named, tmp_path, capsys):
    compile_named(growing)
    content = run(tmp_path, spec_of(global_batch_size=128), find_batch=True)
    assert content["slices"][0]["largest_batch_size_per_replica"] == 144
    assert "v3:2x2: --global_batch_size=1152 fits; 152 on a replica" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CompileTimeoutError(), "timed out (not compiled within --compile_minutes=2)"),
        (CompileError("INTERNAL: killed"), "failed (INTERNAL: killed)"),
        # Figures that are rounded to the same: it does not fit all the same.
        (CompileError("Used 15.48G of 15.48G hbm"), "does not fit (needs 15.48 GiB of memory"),
    ],
)
def test_a_larger_batch_that_ends_otherwise(compile_named, tmp_path, capsys, error, said):
    def stand_in(name, batch):
        if batch >= 40:
            raise error
        return figures(temporaries=0.001 * batch * GIB)

    batches = compile_named(stand_in)
    content = run(tmp_path, find_batch=True)
    assert content["slices"][0]["largest_batch_size_per_replica"] == 32
    assert (
        f"v3:2x2: --batch_size_per_replica=32 fits; 40 on a replica {said}"
        in capsys.readouterr().out
    )
    assert len(set(batches)) <= 11


def test_no_batch_fits(compile_named, tmp_path, capsys):
    compile_named(lambda name, batch: figures(temporaries=(15 + batch) * GIB))
    with pytest.raises(RunError, match="3 of 3 programs"):
        run(tmp_path, find_batch=True)
    assert "v3:2x2: no batch fits; 1 on a replica does not fit (needs" in capsys.readouterr().out
    assert read_json(tmp_path)["slices"][0]["largest_batch_size_per_replica"] == 0


def test_no_batch_is_searched_where_memory_is_not_the_problem(compile_named, tmp_path, capsys):
    def stand_in(name, batch):
        if name == "evaluation":
            raise CompileTimeoutError
        return figures()

    batches = compile_named(stand_in)
    with pytest.raises(RunError, match="1 of 3 programs"):
        run(tmp_path, find_batch=True)
    assert batches == [16, 16, 16]
    assert (
        "v3:2x2: --find_batch: nothing to search, as evaluation does not run for another reason "
        "than memory (timeout)"
    ) in capsys.readouterr().out
    assert read_json(tmp_path)["slices"][0]["largest_batch_size_per_replica"] is None


@pytest.mark.parametrize("there", [True, False])
def test_no_more_photos_is_said_of_data_that_are_there(compile_named, tmp_path, capsys, there):
    compile_named(lambda name, batch: figures())
    photos.write_data_set(tmp_path / "data", train=24, size=32, num_classes=3)
    folder = tmp_path / ("data" if there else "absent")
    spec = spec_of(data_dir=str(folder), batch_size_per_replica=2)
    content = run(tmp_path, spec, find_batch=True, host_images_per_second=1.0)
    largest = content["slices"][0]["largest_batch_size_per_replica"]
    said = capsys.readouterr().out
    if there:
        assert largest == 24 // 8
        assert "=3 fits; the training split has no more photos" in said
    else:
        assert largest == 12_753 // 8
        assert "=1594 fits; more were not tried, as 12,753 photos are assumed" in said
        assert f"12,753 training photos are assumed: --data_dir={folder}: no such folder" in said
