"""Compiles one HLO module for one TPU topology; a process of its own, which imports no TensorFlow.

    python -m flowers_tpu.tpu.worker MODULE RESULT '{"topology": "v3:2x2", …}'

MODULE is a file with a serialized `HloModuleProto`; RESULT gets a JSON object: `memory` (bytes, by
kind), `flops`, `bytes_accessed`, `seconds`, or `error`. `compiler.py` starts it. It knows the
insides of exactly the versions of jax and jaxlib that the extra `tpu-check` pins.
"""

import json
import os
import sys
import threading
import time

# libtpu asks the machine what TPU it has, and here there is none; which of them it is told makes no
# difference, as the topology comes with each compilation.
NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
}


def compile_module(module: bytes, topology: str, options: dict[str, str]) -> dict:
    """Compiles a module for one device of a topology.

    Args:
        module: a serialized `HloModuleProto`.
        topology: as libtpu names it, `v3:2x2`.
        options: of the topology, in libtpu's own words.

    Returns:
        What the compiler says of the result; see the head of this file.
    """
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.interpreters import mlir
    from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]  # it has no types
    from jaxlib.mlir import ir

    device = topologies.get_topology_desc(topology, platform="tpu", **options).devices[0]
    settings = _jax.CompileOptions()
    settings.num_replicas = settings.num_partitions = 1
    settings.device_assignment = _jax.DeviceAssignment.create(np.array([[device.id]]))
    with mlir.make_ir_context():
        stablehlo = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(module))
        # Which outputs are updated inputs, and take no memory of their own, stays an attribute.
        _replace_copies(stablehlo)
        begin = time.monotonic()
        try:
            executable = device.client.compile(stablehlo, _jax.DeviceList((device,)), settings)
        except jax.errors.JaxRuntimeError as error:
            return {"error": str(error), "seconds": time.monotonic() - begin}
        seconds = time.monotonic() - begin
    memory, cost = executable.get_compiled_memory_stats(), executable.cost_analysis()
    return {
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "aliased": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
        },
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "seconds": seconds,
    }


def _replace_copies(module) -> None:
    """A copy, which StableHLO has no word for, becomes a reshape to the same shape."""
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    copies = []

    def find(operation):
        if operation.name == "mhlo.copy":
            copies.append(operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(find)
    for copy in copies:
        with ir.InsertionPoint(copy), copy.location:
            same = stablehlo.reshape(copy.results[0].type, copy.operands[0])
        copy.results[0].replace_all_uses_with(same)
        copy.erase()


def end_with_parent() -> None:
    """Ends this process when the one that started it is gone, which nobody else would tell it."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(module_path: str, result_path: str, request: str) -> None:
    """Reads the module, compiles it and writes the result."""
    end_with_parent()
    os.environ.update(NO_TPU)
    with open(module_path, "rb") as file:
        module = file.read()
    result = compile_module(module, **json.loads(request))
    with open(result_path, "w") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
