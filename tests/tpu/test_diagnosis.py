import inspect

import pytest
import tensorflow as tf

from flowers_tpu.tpu import diagnosis, lowering
from flowers_tpu.tpu.diagnosis import StepError

SPEC = {"image": tf.TensorSpec([4, 8, 8, 3], tf.uint8), "weight": tf.TensorSpec([4], tf.float32)}


def with_dynamic_shape(batch):
    return tf.reduce_sum(tf.boolean_mask(batch["weight"], batch["weight"] > 0))  # the line


def with_host_only_operation(batch):
    jpeg = tf.io.encode_jpeg(batch["image"][0])  # the line
    return tf.cast(tf.io.decode_jpeg(jpeg), tf.float32)


def with_python(batch):
    return tf.py_function(lambda weight: weight * 2, [batch["weight"]], tf.float32)  # the line


def with_print_in_a_branch(batch):
    def shout():
        tf.print(batch["weight"])  # the line
        return tf.constant(1.0)

    return tf.cond(batch["weight"][0] > 0, shout, lambda: tf.constant(0.0))


def keras_layer(batch):
    class Hashes(tf.keras.layers.Layer):
        def call(self, values):
            return tf.strings.to_hash_bucket_fast(tf.strings.as_string(values), 4)  # the line

    return Hashes(name="hashes")(batch["weight"])


@pytest.mark.parametrize(
    ("function", "reason", "operation", "advice"),
    [
        (with_dynamic_shape, "dynamic shape", "Where (boolean_mask/Where)", "tf.where with three"),
        (with_host_only_operation, "host-only", "EncodeJpeg (EncodeJpeg)", "input pipeline"),
        (with_python, "host-only", "EagerPyFunc (EagerPyFunc)", "runs Python on the host"),
        (with_print_in_a_branch, "host-only", "StringFormat (cond/StringFormat)", "outside"),
        (keras_layer, "host-only", "AsString (hashes/AsString)", "cannot"),
    ],
)
def test_names_operation_line_and_remedy(function, reason, operation, advice):
    lines, first = inspect.getsourcelines(function)
    number = first + next(n for n, line in enumerate(lines) if "# the line" in line)
    with pytest.raises(StepError) as error:
        lowering.lower(lowering.Step("step", function), SPEC)
    problem = error.value.problem
    assert problem.reason == reason
    assert problem.operation == operation
    assert problem.source == f"tests/tpu/test_diagnosis.py:{number}"
    assert advice in problem.advice
    assert str(error.value).startswith(f"{operation} at tests/tpu/test_diagnosis.py:{number}: ")


def test_lines_of_keras_are_named_without_the_folder_of_packages():
    graph = tf.Graph()
    with graph.as_default():
        tf.keras.layers.Dense(2, name="dense")(tf.zeros([1, 3]))
    source = diagnosis.source_of(graph, "dense/MatMul")
    assert source.startswith(("tf_keras/", "keras/")) and "dense.py:" in source
    assert diagnosis.source_of(graph, "no_such_operation") == ""


def test_too_little_memory():
    text = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (28.51G) exceeds available HBM (15.48G)."
    )
    problem = diagnosis.of_compilation(text, lambda name: "")
    assert problem.reason == "memory" and problem.needed == 28.51 * 2**30
    assert str(problem) == (
        "needs 28.51 GiB of memory, but 15.48 are available; lower --batch_size_per_replica or "
        "--global_batch_size; --find_batch finds the most"
    )
    text = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 900.00M of 7.48G hbm."
    assert diagnosis.of_compilation(text, lambda name: "").needed == 900 * 2**20


def test_what_else_the_compiler_says_comes_with_the_line_of_its_operation():
    text = 'UNIMPLEMENTED: no such thing\n  metadata={op_type="Foo" op_name="a/Foo"}'
    problem = diagnosis.of_compilation(text, {"a/Foo": "x.py:3"}.__getitem__)
    assert str(problem) == "Foo (a/Foo) at x.py:3: UNIMPLEMENTED: no such thing"
    bare = diagnosis.of_compilation("INTERNAL: something", lambda name: "")
    assert str(bare) == "INTERNAL: something"


@pytest.mark.parametrize("kind", ["LogSoftmax", "LogicalAnd", "Log1p", "SparseMatMul", "MatMul"])
def test_no_advice_on_text_or_files_for_what_only_sounds_like_them(kind):
    text = f'UNIMPLEMENTED: no such thing\n  metadata={{op_type="{kind}" op_name="a"}}'
    assert diagnosis.of_compilation(text, lambda name: "").advice == ""


@pytest.mark.parametrize("kind", ["StringFormat", "AsString", "PrintV2"])
def test_advice_on_text(kind):
    text = f'UNIMPLEMENTED: no such thing\n  metadata={{op_type="{kind}" op_name="a"}}'
    assert "it handles text" in diagnosis.of_compilation(text, lambda name: "").advice
