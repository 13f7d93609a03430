"""What TPUs there are: the published figures of each generation, and the slices to choose from.

Peaks are of bfloat16 products with float32 sums. Where sources differ, the larger figure stands
here: what is worked out from it is a bound.
"""

import dataclasses
import math

from flowers_tpu.system.errors import RequestError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation of TPU chips.

    Attributes:
        name: as in `v3`.
        cloud_name: what Google Cloud calls it in the names of slices, as in `v5litepod`.
        cores: TensorCores on a chip.
        replicas: devices a chip is to a program. A v2 or v3 chip is two, each with half of its
            memory; on v4 both cores work as one ("megacore") on all of it; later ones have a core.
        flops: of a chip, most FLOP/s in bfloat16.
        hbm: of a chip, bytes of memory.
        hbm_bandwidth: of a chip, most bytes/s from and to its memory.
        interconnect: of a chip, most bytes/s that it sends to others of the slice over all links.
        available_per_device: of a device, not of a chip: bytes of memory that a program may use, as
            libtpu 0.0.42.1 says when one is too large: what is not its own.
        chips_of_one_host: the most chips that a single machine (a VM of Google Cloud) has. In a
            slice with more, each of its machines has four.
        layouts: chips of slices on offer, the first being what the bare name stands for.
        options: what else libtpu must be told of such a topology.
        sources: where the published figures come from.
    """

    name: str
    cloud_name: str
    cores: int
    replicas: int
    flops: float
    hbm: float
    hbm_bandwidth: float
    interconnect: float
    available_per_device: float
    chips_of_one_host: int
    layouts: tuple[str, ...]
    sources: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()


_V2_V3_PAPER = "https://doi.org/10.1145/3360307"  # Jouppi et al., CACM 63(7), 2020, table 3
_V4_PAPER = "https://arxiv.org/abs/2304.01433"  # Jouppi et al., ISCA 2023, table 4
_DOCS = "https://cloud.google.com/tpu/docs/"
_CHIPS_OF_EACH_HOST = 4  # in slices of several; `{_DOCS}v6e` lists the VMs of each slice

GENERATIONS = (
    Generation(
        name="v2",
        cloud_name="v2",
        cores=2,
        replicas=2,
        flops=46e12,
        hbm=16 * GIB,
        hbm_bandwidth=700e9,
        interconnect=4 * 496e9 / 8,
        available_per_device=7.48 * GIB,
        chips_of_one_host=4,
        layouts=("2x2", "4x4"),
        sources=(_V2_V3_PAPER,),
    ),
    Generation(
        name="v3",
        cloud_name="v3",
        cores=2,
        replicas=2,
        flops=123e12,
        hbm=32 * GIB,
        hbm_bandwidth=900e9,
        interconnect=4 * 656e9 / 8,
        available_per_device=15.48 * GIB,
        chips_of_one_host=4,
        layouts=("2x2", "4x4"),
        sources=(f"{_DOCS}v3", _V2_V3_PAPER),
    ),
    Generation(
        name="v4",
        cloud_name="v4",
        cores=2,
        replicas=1,
        flops=275e12,
        hbm=32 * GIB,
        hbm_bandwidth=1200e9,
        interconnect=6 * 50e9,
        available_per_device=30.75 * GIB,
        chips_of_one_host=4,
        layouts=("2x2x1", "2x2x2"),
        sources=(f"{_DOCS}v4", _V4_PAPER),
        options=(("chip_config_name", "megacore"),),
    ),
    # The interconnect of these is published as the sum of both directions.
    Generation(
        name="v5e",
        cloud_name="v5litepod",
        cores=1,
        replicas=1,
        flops=197e12,
        hbm=16 * GIB,
        hbm_bandwidth=819e9,
        interconnect=400e9 / 2,
        available_per_device=15.75 * GIB,
        chips_of_one_host=8,
        layouts=("2x4", "1x1", "2x2", "4x4"),
        sources=(f"{_DOCS}v5e",),
    ),
    Generation(
        name="v6e",
        cloud_name="v6e",
        cores=1,
        replicas=1,
        flops=918e12,
        hbm=32 * GIB,
        hbm_bandwidth=1638e9,
        interconnect=800e9 / 2,
        available_per_device=31.25 * GIB,
        chips_of_one_host=8,
        layouts=("2x4", "1x1", "2x2", "4x4"),
        sources=(f"{_DOCS}v6e",),
    ),
)


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips of a generation, side by side: what a run gets.

    Attributes:
        generation: of its chips.
        layout: how they lie, as in `2x2`.
    """

    generation: Generation
    layout: str

    @property
    def topology(self) -> str:
        """Its name to libtpu, as in `v3:2x2`."""
        return f"{self.generation.name}:{self.layout}"

    @property
    def options(self) -> dict:
        """What else libtpu must be told of it."""
        alone = {"chips_per_host_bounds": [1, 1, 1]} if self.chips == 1 else {}
        return {**dict(self.generation.options), **alone}

    @property
    def chips(self) -> int:
        """The number of chips."""
        return math.prod(map(int, self.layout.split("x")))

    @property
    def cores(self) -> int:
        """The number of TensorCores."""
        return self.chips * self.generation.cores

    @property
    def replicas(self) -> int:
        """The number of devices a program sees, which is that of replicas."""
        return self.chips * self.generation.replicas

    @property
    def hosts(self) -> int:
        """The number of machines, each of which feeds its own chips."""
        if self.chips <= self.generation.chips_of_one_host:
            return 1
        return self.chips // _CHIPS_OF_EACH_HOST

    @property
    def accelerator(self) -> str:
        """Its type to Google Cloud, as in `v3-8` or `v5litepod-8`: with the number of cores."""
        return f"{self.generation.cloud_name}-{self.cores}"

    @property
    def flops(self) -> float:
        """Most FLOP/s of one device."""
        return self.generation.flops / self.generation.replicas

    @property
    def hbm(self) -> float:
        """Bytes of memory of one device."""
        return self.generation.hbm / self.generation.replicas

    @property
    def available(self) -> float:
        """Bytes of the memory of one device that a program may use."""
        return self.generation.available_per_device

    @property
    def hbm_bandwidth(self) -> float:
        """Most bytes/s from and to the memory of one device."""
        return self.generation.hbm_bandwidth / self.generation.replicas


SLICES = tuple(Slice(kind, layout) for kind in GENERATIONS for layout in kind.layouts)


def parse_slices(text: str) -> tuple[Slice, ...]:
    """Returns the slices of a comma-separated list of names.

    A name is a topology (`v3:2x2`), what Google Cloud calls it (`v3-8`, `v5litepod-8`; also
    `v5e-8`), or a generation alone (`v3`), which stands for its slice with eight cores.

    Raises:
        RequestError: there is no name, or one is unknown.
    """
    known = {slice_.topology: slice_ for slice_ in SLICES}
    known |= {slice_.accelerator: slice_ for slice_ in SLICES}
    known |= {f"{slice_.generation.name}-{slice_.cores}": slice_ for slice_ in SLICES}
    known |= {kind.name: Slice(kind, kind.layouts[0]) for kind in GENERATIONS}
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if name not in known:
            there_are = ", ".join(f"{s.topology} ({s.accelerator})" for s in SLICES)
            raise RequestError(f"--topology={name} is unknown; there are: {there_are}")
    return tuple(dict.fromkeys(known[name] for name in names))
