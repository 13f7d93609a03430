import sys

import pytest

from flowers_tpu.benchmarks import torch_side
from flowers_tpu.models.classifier import build_classifier
from flowers_tpu.models.options import ModelOptions
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.devices import one_cpu_replica
from flowers_tpu.system.errors import RequestError, RunError
from flowers_tpu.system.facts import Facts

RECIPE = Recipe.on(one_cpu_replica(), Spec.of(backbone="vgg16", batch_size_per_replica=4))

# Speaks as `torch_worker.py` does; a step takes 0.5 s, in bfloat16 0.25 s.
WORKER = """
import json, sys
request = json.loads(sys.argv[1])
print("2.0", flush=True)
for line in sys.stdin:
    precision, steps = line.split()
    if int(steps) > 100:
        sys.exit(f"{request['backbone']} of batch {request['batch_size']}: out of memory")
    print(int(steps) * (0.5 if precision == "float32" else 0.25), flush=True)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    monkeypatch.setattr(torch_side, "_WORKER", str(path))


def test_the_other_process_tells_the_seconds(fake):
    with torch_side.worker(sys.executable, RECIPE, 3) as worker:
        assert worker.version == "2.0"
        sides = torch_side.sides(worker, 4)
        assert [side.name for side in sides] == ["torch float32", "torch bfloat16"]
        runs = [side.open() for side in sides]
        assert [run(8) for run in runs] == [4.0, 2.0]
        assert runs[0](2) == 1.0
        process = worker._process
    assert process.poll() is not None


def test_its_end_is_told_by_its_last_words(fake):
    with (
        torch_side.worker(sys.executable, RECIPE, 3) as worker,
        pytest.raises(RunError, match="PyTorch failed: vgg16 of batch 4: out of memory"),
    ):
        worker.seconds("float32", 1000)


@pytest.mark.parametrize(
    "python, changes, message",
    [
        (sys.executable, {"backbone": "resnet50"}, "--backbone=resnet50 is not measured in PyTo"),
        (sys.executable, {"backbone": "small_cnn"}, "there are: vgg16, mobilenet_v2"),
        (sys.executable, {"optimizer": "lamb"}, "--optimizer=lamb is not measured in PyTorch"),
        ("/no/python", {}, "--torch_python=/no/python: no such program"),
        ("false", {}, "--torch_python=false: cannot import torch"),
    ],
)
def test_what_cannot_be_compared_is_refused(python, changes, message):
    with pytest.raises(RequestError, match=message):
        torch_side.check(python, RECIPE.changed(**changes))


@pytest.mark.parametrize(
    "facts, message",
    [
        (Facts("CPU", replicas=2), "trains on one device, but here are 2 replicas"),
        (Facts("TPU"), "--against=torch: would train beside the TPU"),
    ],
)
def test_it_is_compared_on_one_device_of_the_same_kind(facts, message):
    recipe = Recipe.on(one_cpu_replica(facts), RECIPE.spec)
    with pytest.raises(RequestError, match=message):
        torch_side.check(sys.executable, recipe)


def test_the_version_of_pytorch_is_asked_for(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 2.5.0\n")
    python.chmod(0o755)
    assert torch_side.version(str(python)) == "2.5.0"
    torch_side.check(str(python), RECIPE)


@pytest.mark.parametrize(
    "backbone, alpha", [("vgg16", 1.0), ("mobilenet_v2", 1.0), ("mobilenet_v2", 0.35)]
)
def test_the_networks_have_the_parameters_of_ours(backbone, alpha, monkeypatch):
    pytest.importorskip("torchvision", reason="PyTorch and torchvision are not installed here")
    from flowers_tpu.benchmarks import torch_worker

    ours = build_classifier(
        ModelOptions(backbone=backbone, alpha=alpha, weights="none"),
        num_classes=5,
        image_size=32,
        arithmetic="float32",
        seed=0,
    ).model
    theirs = torch_worker.make_network(backbone, 5, alpha)
    assert sum(p.numel() for p in theirs.parameters()) == sum(
        variable.shape.num_elements() for variable in ours.trainable_variables
    )
