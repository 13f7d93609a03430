"""Each rule fires in its case, and none does in a place that is well."""

import copy

import pytest

from flowers_tpu.doctor import rules

GIGABYTE = 1 << 30
NAMES = dict.fromkeys(rules.NEEDED, "99")
CPU = {
    "python": {"version": "3.11.7", "executable": "python"},
    "packages": {
        "tensorflow": "2.21.0", "tf-keras": "2.21.0", "keras": "3.15.1", "flowers-tpu": "0.2.0",
        "tensorflow-addons": "0.23.0", **NAMES, "numpy": "2.4.6",
    },
    "bounds": {"tensorflow": {"numpy": ">=1.26.0"}},
    "modules": [],
    "tensorflow": {"tpu_kernels": 0, "built_with_cuda": True, "gpus": 0},
    "variables": {},
    "marks": [],
    "devices": {"accel": [], "vfio": [], "nvidia": [], "refused": [], "chips": [], "holders": []},
    "library": None,
    "gpus": {"names": [], "driver": None},
    "cores": {"machine": 2, "usable": 2, "limit": None},
    "memory": {"total": 8 * GIGABYTE, "available": 8 * GIGABYTE, "limit": None},
    "run_folder": {"path": "runs", "writable": True, "free": 50 * GIGABYTE},
    "tpu": None,
}  # fmt: skip


def place(base, **changes):
    """A place with some facts in place of its own; a dictionary is merged, None removes."""
    made = copy.deepcopy(base)
    for name, change in changes.items():
        if isinstance(change, dict) and isinstance(made[name], dict):
            merged = {**made[name], **change}
            made[name] = {key: value for key, value in merged.items() if value is not None}
        else:
            made[name] = change
    return made


TPU = place(
    CPU,
    packages={
        "tensorflow": None,
        "tensorflow-tpu": "2.20.0",
        "tf-keras": "2.20.1",
        "libtpu": "0.0.14",
    },
    bounds={"tensorflow": None, "tensorflow-tpu": {"libtpu": "~=0.0.14"}},
    tensorflow={"tpu_kernels": 1},
    devices={"accel": [f"/dev/accel{n}" for n in range(4)], "chips": ["0x0063"] * 4},
    variables={"TPU_ACCELERATOR_TYPE": "v5litepod-4"},
)
GPU = place(
    CPU,
    tensorflow={"gpus": 1},
    devices={"nvidia": ["/dev/nvidia0"]},
    gpus={"names": ["Tesla T4"], "driver": "560.35.03"},
)


def found(facts):
    return {trouble.name: trouble for trouble in rules.diagnose(facts)}


@pytest.mark.parametrize(
    ("base", "notes"), [(CPU, {"no-accelerator"}), (TPU, {"untried-pair"}), (GPU, set())]
)
def test_nothing_is_wrong_where_nothing_is(base, notes):
    assert found(base).keys() == notes
    assert all(trouble.kind == rules.NOTE for trouble in found(base).values())


# Rule: (place, what it must say, its command; '' for none)
CASES = {
    "python": [
        (place(CPU, python={"version": "3.8.18"}), "Python is 3.8", "python3.11 -m venv .venv"),
        (place(CPU, python={"version": "3.14.0"}), "no wheel", "python3.11 -m venv .venv"),
    ],
    "two-tensorflows": [
        (place(CPU, packages={"tensorflow-cpu": "2.20.0"}), "over each other",
         "python -m pip uninstall -y tensorflow tensorflow-cpu"),
        (place(TPU, packages={"tensorflow-cpu": "2.20.0"}), "tensorflow-cpu 2.20.0 and",
         "python -m pip uninstall -y tensorflow-cpu tensorflow-tpu"),
    ],
    "no-tensorflow": [
        (place(CPU, packages={"tensorflow": None}), "not installed", "python -m pip install -e ."),
        (place(TPU, packages={"tensorflow-tpu": None}), "not installed",
         "python -m pip install 'tensorflow-tpu==2.20.0' 'libtpu==0.0.14'"),
    ],
    "no-tpu-operations": [
        (place(TPU, packages={"tensorflow-tpu": None, "tensorflow": "2.20.0"},
               tensorflow={"tpu_kernels": 0}),
         "tensorflow 2.20.0 has no TPU operations", "python -m pip uninstall -y tensorflow"),
        # The wheel of the right name, but its files are another's.
        (place(TPU, tensorflow={"tpu_kernels": 0}), "tensorflow-tpu 2.20.0 has no TPU operations",
         "python -m pip install 'tensorflow-tpu==2.20.0' 'libtpu==0.0.14'"),
    ],
    "tpu-wheel-without-tpu": [
        (place(TPU, devices={"accel": [], "chips": []}, variables={"TPU_ACCELERATOR_TYPE": None}),
         "cannot compile for a CPU", "python -m pip uninstall -y tensorflow-tpu"),
    ],
    "tpu-taken-by-packages": [
        (place(TPU, packages={"jax": "0.6.2", "torch-xla": "2.8.0"}), "jax 0.6.2, torch-xla 2.8.0",
         "python -m pip uninstall -y jax torch-xla"),
    ],
    "tensorflow-2.19": [
        (place(TPU, packages={"tensorflow-tpu": "2.19.1", "tf-keras": "2.19.0"}), "2.19.1",
         "python -m pip install 'tensorflow-tpu==2.20.0' 'libtpu==0.0.14'"),
    ],
    "tensorflow-version": [
        (place(CPU, packages={"tensorflow": "2.14.0", "keras": "2.14.0"}), "2.15.1 to 2.21",
         "python -m pip install 'tensorflow>=2.15.1,<2.22' 'tf_keras>=2.15.1,<2.22'"),
        (place(CPU, packages={"tensorflow": "2.22.0", "tf-keras": "2.22.0"}), "2.15.1 to 2.21",
         "python -m pip install 'tensorflow>=2.15.1,<2.22' 'tf_keras>=2.15.1,<2.22'"),
    ],
    "no-libtpu": [
        (place(TPU, packages={"libtpu": None}), "libtpu is not installed",
         "python -m pip install 'tensorflow-tpu==2.20.0' 'libtpu==0.0.14'"),
        (place(TPU, library={"path": "/lib/libtpu.so", "exists": False}), "/lib/libtpu.so: no such",
         "unset TPU_LIBRARY_PATH"),
    ],
    "libtpu-too-new": [
        (place(TPU, packages={"libtpu": "0.0.33"}), "0.0.33 is too new",
         "python -m pip install 'tensorflow-tpu==2.20.0' 'libtpu==0.0.14'"),
    ],
    "bounds": [
        (place(CPU, packages={"numpy": "1.24.0"}), "wants numpy >=1.26.0, and 1.24.0 is installed",
         "python -m pip install 'numpy>=1.26.0'"),
        (place(TPU, packages={"libtpu": "0.0.10"}), "wants libtpu ~=0.0.14",
         "python -m pip install 'tensorflow-tpu==2.20.0' 'libtpu==0.0.14'"),
        (place(TPU, packages={"tensorflow-tpu": "2.18.0", "tf-keras": "2.18.0", "libtpu": "0.0.17"},
               bounds={"tensorflow-tpu": {"libtpu": "==2.18.0"}}), "wants libtpu ==2.18.0",
         "python -m pip install tensorflow-tpu==2.18.0 "
         "-f https://storage.googleapis.com/libtpu-tf-releases/index.html"),
    ],
    "keras-2": [
        (place(CPU, packages={"tf-keras": None}), "Keras 3.15.1 is not Keras 2",
         "python -m pip install --no-deps 'tf_keras==2.21.*'"),
        (place(CPU, packages={"tf-keras": "2.19.0"}), "does not belong to tensorflow 2.21.0",
         "python -m pip install --no-deps 'tf_keras==2.21.*'"),
        (place(CPU, packages={"tensorflow": "2.15.1", "tf-keras": None}), "tf_keras is missing",
         "python -m pip install --no-deps 'tf_keras==2.15.*'"),
    ],
    "import": [
        (place(CPU, tensorflow={"error": "ended by signal 11"}), "signal 11",
         "python -m pip install --force-reinstall 'tensorflow==2.21.0'"),
    ],
    "imported-first": [
        (place(CPU, modules=["tensorflow", "keras"]), "import flowers_tpu first",
         "export TF_USE_LEGACY_KERAS=1"),
    ],
    "not-installed": [
        (place(CPU, packages={"pandas": None, "flowers-tpu": None}),
         "Not installed: flowers_tpu itself, pandas.", "python -m pip install -e ."),
        (place(TPU, packages={"pandas": None}), "Not installed: pandas.",
         "python -m pip install 'tensorflow-tpu==2.20.0' 'libtpu==0.0.14'"),
    ],
    "no-device": [
        (place(TPU, devices={"accel": [], "chips": []}), "TPU_ACCELERATOR_TYPE=v5litepod-4 says",
         "docker run --privileged --net=host ...  # of the container that this runs in"),
        (place(TPU, devices={"accel": [], "chips": []}, marks=["/kaggle/input"]), "not given one",
         "# Settings > Accelerator > TPU v5e-8, then restart the session"),
        (place(TPU, devices={"accel": []}), "4 TPU chips are on the bus", "sudo reboot"),
    ],
    "device-refused": [
        (place(TPU, devices={"refused": ["/dev/accel0"]}), "/dev/accel0 may not be opened",
         "sudo chmod a+rw /dev/accel0"),
    ],
    "tpu-held": [
        (place(TPU, devices={"holders": [{"pid": 71, "name": "python3"}]}),
         "taken by python3 (process 71)", "kill 71"),
    ],
    "tpu-hidden": [
        (place(TPU, variables={"TPU_LOAD_LIBRARY": "0"}), "hides", "unset TPU_LOAD_LIBRARY"),
    ],
    "several-workers": [
        (place(CPU, variables={"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'}),
         "names 2 workers", "unset TF_CONFIG"),
        (place(CPU, variables={"TF_CONFIG": "{"}), "not a JSON object", "unset TF_CONFIG"),
    ],
    "gpu-driver": [
        (place(GPU, gpus={"driver": "470.82.01"}), "470.82.01",
         "sudo ubuntu-drivers install && sudo reboot"),
        (place(GPU, gpus={"names": [], "error": "nvidia-smi: no devices"}), "does not answer",
         "sudo ubuntu-drivers install && sudo reboot"),
    ],
    "gpu-unseen": [
        (place(GPU, tensorflow={"gpus": 0}), "CUDA's libraries are missing",
         "python -m pip install 'tensorflow[and-cuda]==2.21.0'"),
        (place(GPU, packages={"tensorflow": None, "tensorflow-cpu": "2.21.0"},
               tensorflow={"gpus": 0, "built_with_cuda": False}), "it has no CUDA",
         "python -m pip uninstall -y tensorflow-cpu"),
        (place(GPU, tensorflow={"gpus": 0}, variables={"CUDA_VISIBLE_DEVICES": "-1"}),
         "CUDA_VISIBLE_DEVICES=-1 hides", "unset CUDA_VISIBLE_DEVICES"),
    ],
    "run-folder": [
        (place(CPU, run_folder={"writable": False}), "runs cannot be written to",
         "python scripts/train.py --tpu=local --run_dir=FOLDER --flagfile=..."),
        (place(CPU, run_folder={"writable": False}, marks=["/kaggle/input"]), "cannot",
         "python scripts/train.py --tpu=local --run_dir=/kaggle/working/run --flagfile=..."),
    ],
    "room": [
        (place(CPU, run_folder={"free": GIGABYTE}), "1.0 GB free",
         "python scripts/train.py --tpu=local --run_dir=FOLDER --flagfile=..."),
    ],
    "memory": [
        (place(CPU, memory={"limit": GIGABYTE}), "1.0 GB of memory",
         "python scripts/train.py --batch_size_per_replica=4 --flagfile=..."),
    ],
    "tpu-failed": [(place(TPU, tpu={"error": "no answer"}), "did not start: no answer", "")],
    "v6e": [
        (place(TPU, variables={"TPU_ACCELERATOR_TYPE": "v6e-8"}), "v6e", ""),
        (place(TPU, devices={"chips": ["0x006f"] * 8}), "v6e", ""),
    ],
    "untried-pair": [(TPU, "2.20", "")],
    "no-accelerator": [(CPU, "runs on the CPU", "")],
    "addons": [
        (place(CPU, packages={"tensorflow-addons": None}), "--optimizer=lamb",
         "python -m pip install --no-deps tensorflow-addons==0.23.0 'typeguard<3' packaging"),
        (place(CPU, packages={"tensorflow-addons": None}, python={"version": "3.12.3"}),
         "no wheel for Python 3.12", ""),
    ],
}  # fmt: skip


def test_every_rule_has_a_case():
    assert list(CASES) == [rule.name for rule in rules.RULES]


@pytest.mark.parametrize(
    ("name", "facts", "says", "command"),
    [(name, *case) for name, cases in CASES.items() for case in cases],
)
def test_a_rule_fires(name, facts, says, command):
    trouble = found(facts)[name]
    assert says in trouble.wrong
    assert trouble.commands[:1] == ([command] if command else [])


# What looks like a trouble and is none.
SILENT = {
    "python": place(TPU, python={"version": "3.10.12"}),
    "no-tpu-operations": place(CPU, devices={"vfio": ["/dev/vfio/12"]}),  # a handed-on sound card
    "tpu-taken-by-packages": place(CPU, packages={"jax": "0.10.2", "libtpu": "0.0.42.1"}),
    "libtpu-too-new": place(TPU, packages={"libtpu": "0.0.30"}),
    "no-libtpu": place(
        TPU, packages={"libtpu": None}, library={"path": "/lib/libtpu.so", "exists": True}
    ),
    "keras-2": place(CPU, packages={"tensorflow": "2.15.1", "keras": "2.15.0", "tf-keras": None}),
    "imported-first": place(CPU, modules=["tensorflow"], variables={"TF_USE_LEGACY_KERAS": "1"}),
    "no-device": place(TPU, devices={"accel": [], "vfio": ["/dev/vfio/0"]}),
    "device-refused": place(CPU, devices={"vfio": ["/dev/vfio/12"], "refused": ["/dev/vfio/12"]}),
    "tpu-hidden": place(CPU, variables={"TPU_LOAD_LIBRARY": "0"}),  # drives a slice by its name
    "several-workers": place(CPU, variables={"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}),
    "run-folder": place(CPU, run_folder={"path": "gs://b/r", "writable": None, "free": None}),
    "memory": place(CPU, memory={"total": None, "limit": None}),
    "tpu-failed": place(TPU, tpu={"cores": 8}),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_rule_is_silent(name):
    assert name not in found(SILENT[name])


def test_facts_that_are_missing_are_no_trouble_of_their_own():
    assert found({}).keys() == {"no-tensorflow", "not-installed", "no-accelerator"}


def test_if_python_is_too_old_nothing_is_installed_into_it():
    troubles = found(place(CPU, python={"version": "3.9.2"}, packages={"tensorflow": None}))
    assert troubles["python"].commands == troubles["no-tensorflow"].commands
    assert troubles["python"].commands[1] == ".venv/bin/pip install -e ."


@pytest.mark.parametrize(
    ("version", "wanted", "met"),
    [
        ("2.0.2", "<2.1.0,>=1.26.0", True), ("2.1.0", "<2.1.0,>=1.26.0", False),
        ("0.5.1", "<0.5.0,>=0.4.0", False), ("0.0.52", "~=0.0.14", True),
        ("0.1.0", "~=0.0.14", False), ("0.0.13", "~=0.0.14", False), ("0.0.42.1", "~=0.0.14", True),
        ("2.18.0", "==2.18.0", True), ("0.0.17", "==2.18.0", False), ("2.18", "==2.18.0", True),
        ("4.21.3", "!=4.21.3,>=3.20.3", False), ("2.20.1", "==2.20.*", True),
        ("2.21.0", "==2.20.*", False), ("2.20.0rc1", ">=2.20", True), ("5", "===what", True),
    ],
)  # fmt: skip
def test_bounds_are_read_as_pip_does(version, wanted, met):
    assert rules.meets(version, wanted) is met
