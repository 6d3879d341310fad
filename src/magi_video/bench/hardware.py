"""What a device can do: its makers' figures for dense products, and its memory."""

from dataclasses import dataclass, replace

from magi_video.errors import MagiError, counted

GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """One device.

    Attributes:
        name: of it.
        bf16_tflops, float32_tflops: peak of matrix products without sparsity; float32 is IEEE's, since the diffusion
            head is float32 and nothing here switches TF32 on.
        memory_gib: that PyTorch can hand out; None if it is not known.
        fused_attention: whether training's attention keeps no probabilities (GPUs) or does (CPUs).
        usable: share of the memory that tensors may take; the rest is for the driver, communication and what the
            allocator cannot use (on CPUs measured, `benchmarks/plan.py`).
        source: of the figures.
    """

    name: str
    bf16_tflops: float
    float32_tflops: float
    memory_gib: float | None
    fused_attention: bool = True
    usable: float = 0.9
    source: str = "data sheet"


DATA_SHEETS = {
    one.name: one
    for one in (
        Hardware("a100", 312, 19.5, 79),
        Hardware("a100-40gb", 312, 19.5, 39),
        Hardware("h100", 989, 67, 79),
        Hardware("h200", 989, 67, 139),
        Hardware("b200", 2250, 75, 178),
        Hardware("l40s", 362, 91.6, 44),
        Hardware("rtx4090", 165, 82.6, 23.5),
        Hardware("mi300x", 1307, 163.4, 191),
    )
}
"""The SXM or OAM version where there are several."""
FLOAT32_SHARE = 1 / 15
"""Of the bfloat16 peak, where only that is given: as of the H100."""


def find_hardware(
    name: str | None, peak_tflops: float | None, peak_float32: float | None, memory_gib: float | None
) -> Hardware:
    """A device by name, by figures, or both: figures take the place of the name's.

    Args:
        name: one of `DATA_SHEETS`, "cpu" for this machine, measured now, or None with `peak_tflops`.
        peak_tflops: bfloat16 peak.
        peak_float32: float32 peak.
        memory_gib: that can be used.

    Raises:
        MagiError: unknown name, neither name nor peak, or figures that are not above zero.
    """
    for option, value in (("peak-tflops", peak_tflops), ("peak-float32", peak_float32), ("device-memory", memory_gib)):
        if value is not None and not 0 < value < float("inf"):
            raise MagiError(f"{option} {value}; expected a number above 0")
    if name is None:
        if peak_tflops is None:
            raise MagiError(f"name the hardware ({', '.join(DATA_SHEETS)}, cpu) or give --peak-tflops")
        return Hardware(
            "given", peak_tflops, peak_float32 or peak_tflops * FLOAT32_SHARE, memory_gib, source="as given"
        )
    if name == "cpu":
        known = this_cpu()
    elif name in DATA_SHEETS:
        known = DATA_SHEETS[name]
    else:
        raise MagiError(f"unknown hardware {name!r}; expected one of {', '.join(DATA_SHEETS)}, cpu, or --peak-tflops")
    given = any(value is not None for value in (peak_tflops, peak_float32))
    return replace(
        known,
        bf16_tflops=peak_tflops or known.bf16_tflops,
        float32_tflops=peak_float32 or known.float32_tflops,
        memory_gib=memory_gib or known.memory_gib,
        source="as given" if given else known.source,
    )


def this_cpu() -> Hardware:
    """This machine's processor: peaks measured now, on PyTorch's threads; memory that is free now."""
    import torch  # which takes seconds; a GPU's figures stand in a table

    from magi_video.bench.machine import available_memory_bytes, matmul_peaks

    device = torch.device("cpu")
    peaks = matmul_peaks(device)
    available = available_memory_bytes(device)
    memory = None if available is None else available / GIB
    threads = torch.get_num_threads()
    source = f"measured now on {counted(threads, 'thread')}"
    return Hardware("cpu", peaks["bf16"] / 1e3, peaks["float32"] / 1e3, memory, False, 0.7, source)
