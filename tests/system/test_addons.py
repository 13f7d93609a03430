import subprocess
import sys

import pytest

from flowers_tpu.system import addons
from flowers_tpu.system.errors import RequestError

# In a process of its own: in this one, TensorFlow Addons may be imported already.
IMPORT = """
import warnings
warnings.simplefilter("default")
import flowers_tpu
import tensorflow as tf
import keras
from flowers_tpu.system import addons

def keras_modules():
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "keras"}

before = keras_modules()
tfa = addons.tensorflow_addons("--optimizer=lamb")
assert len(before) > 10
assert keras_modules().keys() >= before.keys()
for name, module in before.items():
    assert sys.modules[name] is module, name
import keras as keras_again
assert keras_again is keras

variable = tf.Variable([3.0, 4.0])
tfa.optimizers.LAMB(learning_rate=0.1).apply_gradients([(tf.constant([1.0, 1.0]), variable)])
print(variable.numpy().tolist())
"""


def test_lamb_works_and_keras_is_what_it_was():
    result = subprocess.run(
        [sys.executable, "-c", f"import sys{IMPORT}"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    # The first step of LAMB is along the sign of the gradient, as long as rate * |variable|.
    length = 0.1 * 5
    expected = [3 - length / 2**0.5, 4 - length / 2**0.5]
    values = [float(value) for value in result.stdout.strip("[]\n").split(",")]
    assert values == pytest.approx(expected, rel=1e-4)
    assert "TensorFlow Addons (TFA) has ended" not in result.stderr
    assert "supports using Python ops" not in result.stderr


def test_without_tensorflow_addons_the_flag_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)  # importing it now fails
    before = {name: module for name, module in sys.modules.items() if name.startswith("keras")}
    with pytest.raises(RequestError) as caught:
        addons.tensorflow_addons("--optimizer=lamb")
    assert str(caught.value).startswith("--optimizer=lamb needs the package tensorflow-addons")
    assert "Python 3.9 to 3.11" in str(caught.value)
    assert {n: m for n, m in sys.modules.items() if n.startswith("keras")} == before
