"""What docs/serving.md has in Python runs, without a server: against the SavedModel itself."""

import base64
import io
import json
import re
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

BLOCKS = re.findall(
    r"```python\n(.*?)```", Path("docs/serving.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.fixture(scope="module")
def saved_model(exported):
    return tf.saved_model.load(str(exported("savedmodel", 1)))


@pytest.fixture(scope="module")
def photo(trained_runs):
    """The first validation photo, with what the run takes it for."""
    data = trained_runs[1].parent / "data1" / "val"
    record = next(tf.data.TFRecordDataset(sorted(map(str, data.iterdir()))).as_numpy_iterator())
    jpeg = tf.train.Example.FromString(record).features.feature["image"].bytes_list.value[0]
    return jpeg, pd.read_csv(trained_runs[1] / "predictions_val.csv").iloc[0]


def answer(model, body: bytes) -> bytes:
    """What TensorFlow Serving answers to a request in the row format of its REST interface.

    https://www.tensorflow.org/tfx/serving/api_rest: an instance is an object of the inputs by name
    (or the one input's value), binary values are {"b64": …}; a prediction likewise.
    """
    request = json.loads(body)
    signature = model.signatures[request.get("signature_name", "serving_default")]
    (inputs,) = signature.structured_input_signature[1:]
    ((name, spec),) = inputs.items()

    def value(instance):
        instance = instance[name] if isinstance(instance, dict) and name in instance else instance
        return base64.b64decode(instance["b64"]) if isinstance(instance, dict) else instance

    tensor = tf.constant([value(instance) for instance in request["instances"]], spec.dtype)
    outputs = {key: found.numpy() for key, found in signature(**{name: tensor}).items()}

    def plain(array):
        decoded = np.char.decode(array.astype(bytes), "utf-8") if array.dtype == object else array
        return decoded.tolist()

    rows = range(len(request["instances"]))
    predictions = [{key: plain(array[row]) for key, array in outputs.items()} for row in rows]
    return json.dumps({"predictions": predictions}).encode()


def test_the_client_of_the_rest_interface(saved_model, photo, tmp_path, monkeypatch, capsys):
    jpeg, row = photo
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    monkeypatch.chdir(tmp_path)
    asked = []

    def urlopen(address, body):
        asked.append((address, body))
        return io.BytesIO(answer(saved_model, body))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    exec(BLOCKS[0], {})
    ((address, body),) = asked
    assert address.endswith(":8501/v1/models/flowers:predict")
    assert json.loads(body) == {
        "instances": [{"jpeg_bytes": {"b64": base64.b64encode(jpeg).decode()}}]
    }
    name, confidence = re.fullmatch(r"photo.jpg (.*) (\S+)\n", capsys.readouterr().out).groups()
    assert name == row["predicted_name"]
    assert float(confidence) == pytest.approx(row["confidence"], abs=1e-5)


def test_pixels_in_the_same_format(saved_model, photo):
    jpeg, row = photo
    pixels = tf.io.decode_jpeg(jpeg, channels=3).numpy().tolist()
    body = json.dumps({"signature_name": "pixels", "instances": [pixels, pixels]}).encode()
    first, second = json.loads(answer(saved_model, body))["predictions"]
    assert first == second and first["names"][0] == row["predicted_name"]
    assert first["confidences"][0] == pytest.approx(row["confidence"], abs=1e-5)
    assert sum(first["probabilities"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_the_tflite_lines(exported, photo, tmp_path, monkeypatch, capsys):
    shutil.copytree(exported("tflite", 1), tmp_path / "runs/quickstart/export/tflite")
    monkeypatch.chdir(tmp_path)
    jpeg, row = photo
    Image.open(io.BytesIO(jpeg)).resize((80, 80)).save("photo.jpg")
    exec(BLOCKS[1].replace("(96, 96)", "(32, 32)"), {})
    assert capsys.readouterr().out.splitlines()[-1].startswith(row["predicted_name"])
