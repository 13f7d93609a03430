"""What a step of two local workers costs, and its exchange of gradients alone.

    python -m flowers_tpu.benchmarks.two_workers FLAGS

is one of the two: FLAGS is a JSON object of the flags of a run, with `workers` and `worker_index`.
The chief prints a JSON object: by name, seconds a step in each round.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import workers
from flowers_tpu.system.errors import RunError
from flowers_tpu.system.launching import free_ports

_STEPS = 8  # of a turn
_ROUNDS = 5


def seconds(flags: Mapping[str, Any]) -> dict[str, list[float]]:
    """Starts two workers with the flags of a run; returns seconds by what was timed.

    Raises:
        RunError: one of them fails.
    """
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    own = {"workers": addresses, "replicas": 0, "tpu": "", "require_tpu": False}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps({**flags, **own, "worker_index": index})],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    ends = [(process, *process.communicate()) for process in processes]
    for process, _, err in ends:
        if process.returncode:
            last = (err.strip().splitlines() or ["no message"])[-1]
            raise RunError(f"two workers: one of the processes ended with: {last}")
    return json.loads(ends[0][1].splitlines()[-1])


def main(flags: str) -> None:
    """Times as one of the workers."""
    spec = Spec.of(**json.loads(flags))
    cluster = workers.find_cluster(spec.devices)
    assert cluster is not None
    workers.Exchange(cluster, spec.devices.workers_seconds).close()
    workers.join(cluster)
    # Only now, as these import TensorFlow.
    import tensorflow as tf

    from flowers_tpu.benchmarks.work import make_work
    from flowers_tpu.runs.recipe import Recipe
    from flowers_tpu.training.steps import trained_in_finetuning

    recipe = Recipe.choose(spec)
    work = make_work(recipe, recipe.load_data(("train",)))
    shapes = [v.shape for v in trained_in_finetuning(work.state.classifier)]

    def exchanged() -> None:
        gradients = [tf.ones(shape) for shape in shapes]
        context = tf.distribute.get_replica_context()
        context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)

    @tf.function
    def exchange(num_steps):
        for _ in tf.range(num_steps):
            recipe.strategy.run(exchanged)
        return num_steps

    def step(num_steps):
        work.start_over()
        return work.train_steps["finetune"](work.resident, num_steps).finite

    timed = {"step": step, "exchange of gradients alone": exchange}
    found: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(_ROUNDS + 1):  # the first compiles
        for name, function in timed.items():
            found[name].append(_seconds_a_step(function, tf.constant(_STEPS)))
    print(json.dumps({name: series[1:] for name, series in found.items()}), flush=True)
    workers.leave(0)


def _seconds_a_step(function: Callable, num_steps: Any) -> float:
    begin = time.perf_counter()
    function(num_steps).numpy()
    return (time.perf_counter() - begin) / _STEPS


if __name__ == "__main__":
    main(*sys.argv[1:])
