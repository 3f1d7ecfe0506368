"""What accelerators can do by the figures of those who make them, each with where it stands."""

from collections.abc import Mapping
from typing import NamedTuple

GB, TB, GIB = 1e9, 1e12, 2**30


class Accelerator(NamedTuple):
    """One device, as JAX counts them: a GPU, or a TPU chip.

    Attributes:
      name: in full.
      bfloat16: FLOP/s of matrix products, dense.
      float32: the same of float32 at JAX's default precision (`jax.lax.Precision`): TF32 on these GPUs, one pass of
        bfloat16 on a TPU.
      memory: bytes.
      bandwidth: bytes/s of it.
      interconnect: bytes/s to other devices, each way: half of what is published for both ways together. Of a GPU it
        is NVLink's, which ends at the host.
      source: of the figures.
      topology: how many dimensions the mesh of a TPU has, and its name to the TPU's compiler; None of a GPU.
    """

    name: str
    bfloat16: float
    float32: float
    memory: float
    bandwidth: float
    interconnect: float
    source: str
    topology: tuple[str, int] | None = None

    @property
    def room(self) -> float:
        """Bytes that JAX takes: of a GPU three fourths, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise."""
        return self.memory if self.topology else 0.75 * self.memory


_CLOUD = "https://docs.cloud.google.com/tpu/docs/"
_NOTES = "https://glennklockwood.com/garden/processors/"  # which names NVIDIA's data sheets and white papers

ACCELERATORS: Mapping[str, Accelerator] = {
    "a100": Accelerator(
        name="NVIDIA A100 SXM 80 GB",
        bfloat16=312 * TB,
        float32=156 * TB,
        memory=80 * GB,
        bandwidth=2039 * GB,
        interconnect=300 * GB,
        source=f"NVIDIA's data sheet, as copied at {_NOTES}A100",
    ),
    "h100": Accelerator(
        name="NVIDIA H100 SXM 80 GB",
        bfloat16=989.4 * TB,
        float32=494.7 * TB,
        memory=80 * GB,
        bandwidth=3350 * GB,
        interconnect=450 * GB,
        source=f"NVIDIA's white paper, as copied at {_NOTES}h100",
    ),
    "h200": Accelerator(
        name="NVIDIA H200 SXM 141 GB",
        bfloat16=989.4 * TB,
        float32=494.7 * TB,
        memory=141 * GB,
        bandwidth=4800 * GB,
        interconnect=450 * GB,
        source=f"the processor of the H100 ({_NOTES}h100); memory by https://aiwiki.ai/wiki/nvidia_h200; NVLink by "
        "NVIDIA's H200-SXM-141GBx8_TRT_MaxQ.json in mlcommons/inference_results_v4.1",
    ),
    "v5e": Accelerator(
        name="TPU v5e",
        bfloat16=197 * TB,
        float32=197 * TB,
        memory=16 * GB,
        bandwidth=819 * GB,
        interconnect=200 * GB,
        source=f"{_CLOUD}v5e",
        topology=("v5e", 2),
    ),
    "v5p": Accelerator(
        name="TPU v5p",
        bfloat16=459 * TB,
        float32=459 * TB,
        memory=95 * GIB,
        bandwidth=2765 * GB,
        interconnect=600 * GB,
        source=f"{_CLOUD}v5p-training",
        topology=("v5p", 3),
    ),
    "v6e": Accelerator(
        name="TPU v6e (Trillium)",
        bfloat16=918 * TB,
        float32=918 * TB,
        memory=32 * GB,
        bandwidth=1600 * GB,
        interconnect=400 * GB,
        source=f"{_CLOUD}v6e",
        topology=("v6e", 2),
    ),
}
