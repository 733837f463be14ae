"""Say how many operations a second a GPU could do at most: what no kernel can beat."""

from __future__ import annotations

# Operations of one SM in one clock, a fused multiply-add being two, dense, in the narrowest type that its
# tensor cores know but for single bits. From NVIDIA's architecture whitepapers: a product's operations a
# second are these times its SMs times its boost clock.
_PER_CLOCK = {
    (7, 0): 1024,  # fp16. Volta: V100, 125 TFLOPS, 80 SMs, 1.53 GHz
    (7, 5): 4096,  # int4. Turing: T4, 260 TOPS, 40 SMs, 1.59 GHz
    (8, 0): 8192,  # int4. A100 Tensor Core GPU Architecture: 1,248 TOPS, 108 SMs, 1.41 GHz
    (8, 6): 4096,  # int4. Ampere GA102: RTX 3090, 568 TOPS, 82 SMs, 1.695 GHz
    (8, 9): 4096,  # int4. Ada: RTX 4090, 1,321 TOPS, 128 SMs, 2.52 GHz
    (9, 0): 8192,  # fp8, int8. H100 Tensor Core GPU Architecture: 1,979 TFLOPS, 132 SMs, 1.83 GHz
    (10, 0): 32768,  # fp4. Blackwell: B200, 9 PFLOPS, 148 SMs, 1.85 GHz
    (12, 0): 4096,  # fp4. RTX Blackwell: RTX 5090, 1,676 TOPS, 170 SMs, 2.407 GHz
}
# The same of its fp32 units, without tensor cores: 64 or 128 additions by the CUDA C++ Programming Guide,
# "Throughput of Native Arithmetic Instructions".
_FP32_PER_CLOCK = {
    **dict.fromkeys([(7, 0), (7, 5), (8, 0)], 128),
    **dict.fromkeys([(8, 6), (8, 9), (9, 0), (10, 0), (12, 0)], 256),
}


def peak_flops(compute_capability: tuple[int, int] | None, units: int, hertz: float) -> float:
    """Return the operations a second of ``units`` SMs at their highest clock; 0 if unknown."""
    return _PER_CLOCK.get(compute_capability or (0, 0), 0) * units * hertz


def peak_fp32(compute_capability: tuple[int, int] | None, units: int, hertz: float) -> float:
    """Return the fp32 operations a second of ``units`` SMs without tensor cores; 0 if unknown."""
    return _FP32_PER_CLOCK.get(compute_capability or (0, 0), 0) * units * hertz
