"""Kernels of public repositories, what they are given and should give, and the bugs that are planted in them.

Of their files there are names, line numbers and single words here. A bug replaces a pattern in one line; the
lines that may be named for it are those of the accesses that then go wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from public_bugs import Bug, Case, barrier, between, beyond, lanes, plain, unwritten

LEET = "lzyrapx+LeetGPU/cuda/"
LECTURES = "gpu-mode+lectures/"
SGEMM = "siboehm+SGEMM_CUDA/src/kernels/"
LLM = "karpathy+llm.c/dev/cuda/"
RODINIA = "yuhc+gpu-rodinia/cuda/"
SAMPLES = "NVIDIA+cuda-samples/Samples/"
COMMON = ("-I", "NVIDIA+cuda-samples/Common")  # from the folder of the checkouts

draw = np.random.default_rng(7)
i32, f32, u32 = np.int32, np.float32, np.uint32


def floats(*shape: int) -> np.ndarray:
    return draw.random(shape, f32)


def zeros(*shape: int, dtype: Any = f32) -> np.ndarray:
    return np.zeros(shape, dtype)


def bf16(numbers: np.ndarray) -> np.ndarray:
    """Return the bits of numbers that bf16 has."""
    return (numbers.astype(f32).view(u32) >> 16).astype(np.uint16)


def cases() -> list[Case]:
    return [*reductions(), *warps(), *tiles(), *others()]


def reductions() -> list[Case]:
    x, y, rows = floats(5000), floats(5000), floats(64, 300)
    total, part = np.array([x.sum()]), x[: 19 * 256].reshape(19, 256).sum(1)
    dot = np.array([(x * y)[i : i + 256].sum() for i in range(0, 5000, 256)])
    squares = np.array(
        [sum((x[j * 256 : (j + 1) * 256] ** 2).sum() for j in range(b, 20, 4)) for b in range(4)]
    )
    return [
        Case(LEET + "Reduction/Reduction.cu", "reduction_kernel", 3, 1024, 4096, [x, zeros(1), i32(5000)],
             {1: total}, (
            barrier(17, 19), plain(25, r"atomicAdd\(output, (.*)\)", r"*output += \1"),
            beyond(10, r"\(i < N\)", "(true)"), beyond(11, r"i \+ .* < N", "true", 12),
            unwritten(10, "^", "if (tid != 77)", 12, 19))),
        Case(LEET + "Dot Product/Dot Product.cu", "dot_product_kernel", 20, 256, 1024, [x, y, zeros(20),
             i32(5000)], {2: dot}, (
            barrier(9, 14), barrier(16, 14, 20), beyond(7, "< N", "<= N"), beyond(14, r"tid \+ s",
            "tid + s + 129"),
            between(20, "blockIdx.x", "blockIdx.x / 2"))),
        Case(LEET + "Dot Product/Dot Product.cu", "sum_kernel", 1, 256, 1024, [part, zeros(1), i32(19)],
             {1: part.sum(keepdims=True)},
             (barrier(33, 38), unwritten(27, "^", "if (tid < 200)", 31, 38))),
        Case(LEET + "RMS Normalization/RMS Normalization.cu", "partial_sum_kernel", 4, 256, 1024, [x,
             i32(5000), zeros(4)],
             {2: squares}, (barrier(16, 20), barrier(22, 20, 26))),
        Case(LEET + "Monte Carlo Integration/Monte Carlo Integration.cu", "sum_kernel", 4, 256, 1024, [x,
             zeros(1), i32(5000)],
             {1: total}, (barrier(26, 24, 31), plain(31, r"atomicAdd\(total_sum, (.*)\)",
             r"*total_sum += \1"))),
        Case(LECTURES + "lecture_009/simple_reduce.cu", "SimpleSumReductionKernel", 1, 512, 0, [x[:1024],
             zeros(1)],
             {1: x[:1024].sum(keepdims=True)}, (barrier(10, 8),)),
        Case(LECTURES + "lecture_009/shared_reduce.cu", "SharedMemoryReduction", 1, 1024, 0, [x[:2048],
             zeros(1)],
             {1: x[:2048].sum(keepdims=True)}, (barrier(13, 15), beyond(9, "BLOCK_DIM", "BLOCK_DIM - 1",
             11))),
        Case(LECTURES + "lecture_009/reduce_coarsening.cu", "CoarsenedReduction", 3, 1024, 0, [x, zeros(1),
             i32(5000)], {1: total},
             (barrier(23, 28), plain(35, r"atomicAdd\(output, (.*)\)", r"*output += \1"))),
        Case(LECTURES + "lecture_009/segment_reduce.cu", "SharedMemoryReduction", 5, 1024, 0, [x, zeros(1),
             i32(5000)], {1: total},
             (barrier(24, 22, 30), plain(30, r"atomicAdd\(output, (.*)\)", r"*output += \1"))),
        Case(LLM + "layernorm_forward.cu", "mean_kernel", 64, 128, 512, [zeros(64), rows, i32(64), i32(300),
             i32(128)],
             {0: rows.mean(1)}, (barrier(127, 129),)),
        Case(LLM + "softmax_forward.cu", "softmax_forward_kernel2", 64, 128, 512, [zeros(64, 300), rows,
             i32(64), i32(300)],
             {0: np.exp(rows) / np.exp(rows).sum(1, keepdims=True)}, (barrier(140, 142), barrier(145, 142,
             146, 158), barrier(167, 163, 168))),
        Case(SAMPLES + "2_Concepts_and_Techniques/scalarProd/scalarProd_kernel.cuh", "scalarProdGPU", 1,
             128, 0,
             [zeros(2), x[:4000], y[:4000], i32(2), i32(2000)], {0: (x[:4000] * y[:4000]).reshape(2,
             2000).sum(1)},
             (barrier(86, 89), barrier(92, 78, 89), unwritten(72, "ACCUM_N", "ACCUM_N - 3", 89))),
        Case(LEET + "2D Subarray Sum/2D Subarray Sum.cu", "total_sum_kernel", 1, 1024, 0,
             [np.arange(900, dtype=i32), zeros(1, dtype=i32), i32(900)], {1: np.array([899 * 450])},
             (barrier(45, 43, 49), beyond(32, "1024", "1000", 38))),
        Case(LEET + "Batch Normalization/Batch Normalization.cu", "batch_normalize", 76, 256, 0,
             [rows, np.ones(300, f32), zeros(300), zeros(64, 300), rows.mean(0), rows.var(0), i32(64),
             i32(300), f32(0)],
             {3: (rows - rows.mean(0)) / rows.std(0)}, (beyond(61, "< total", "<= total", 67),
                                                       between(68, r"output\[idx\]", "output[j]"))),
    ]  # fmt: skip


def warps() -> list[Case]:
    x, y = floats(3000), floats(3000)
    small, other = (draw.integers(0, 3, shape).astype(f32) for shape in ((100, 30), (46, 64)))
    image, mask = floats(2, 3, 20, 30), floats(3, 5)
    pooled = np.full((2, 3, 10, 15), -np.inf, f32)
    for i in range(2):
        for j in range(2):
            pooled = np.maximum(pooled, image[:, :, i::2, j::2])
    values = draw.integers(0, 100, 5000).astype(i32)
    values[:7] = 100
    counted = np.bincount(values[values < 100], minlength=100).astype(i32)
    convolved = sum(image[0, 0, i : i + 18, j : j + 26] * mask[i, j] for i in range(3) for j in range(5))
    return [
        Case(LEET + "Mean Squared Error/Mean Squared Error (optimized).cu", "mean_squared_error", 6, 128, 0,
             [x, y, zeros(1), i32(3000)],
             {2: ((x - y) ** 2).mean(keepdims=True)}, (
                 barrier(30, 33), lanes(27, "0xffffffff", "0x0000ffff"), lanes(35, "0xffffffff",
                 "0x7fffffff"),
                 plain(37, r"atomicAdd\(mse, (.*)\)", r"*mse += \1"), beyond(10, "threads / warp_size", "3",
                 29))),
        Case(LEET + "Categorical Cross Entropy Loss/Categorical Cross Entropy Loss.cu", "reduce_sum_kernel",
             4, 256, 0,
             [x, zeros(1), i32(3000)], {1: x.mean(keepdims=True)}, (
                 barrier(34, 35), lanes(21, "0xffffffff", "0x0000ffff"), plain(49,
                 r"atomicAdd\(global_sum, (.*)\)", r"*global_sum += \1"),
                 unwritten(32, "^", "if (wid != 5)", 35))),
        Case(LLM + "matmul_backward_bias.cu", "matmul_backward_bias_kernel3", 30, 128, 0,
             [zeros(30, dtype=np.uint16), bf16(small), i32(10), i32(10), i32(30)], {0: bf16(small.sum(0))},
             (barrier(145, 147), Bug("barrier in a branch", 145, ".*", "if (lane_id) __syncthreads();",
             "race", (147,)))),
        Case(LLM + "matmul_backward_bias.cu", "matmul_backward_bias_kernel4", 2, 128, 512,
             [zeros(64, dtype=np.uint16), bf16(other), i32(23), i32(2), i32(64)], {0: bf16(other.sum(0))},
             (barrier(184, 190), between(167, r"\* warpSize", "* (warpSize / 2)", 192))),
        Case(LEET + "Histogramming/Histogramming.cu", "histogram_kernel", 5, 256, 400, [values, zeros(100,
             dtype=i32), i32(5000), i32(100)],
             {1: counted}, (
                 barrier(16, 33), barrier(37, 33, 41), plain(33, r"atomicAdd\(&(.*), 1\)", r"\1 += 1"),
                 plain(42, r"atomicAdd\(&(.*), (.*)\)", r"\1 += \2"), unwritten(13, "num_bins",
                 "num_bins - 1", 33, 41),
                 beyond(32, "< num_bins", "<= num_bins", 33))),
        Case(LEET + "2D Max Pooling/2D Max Pooling.cu", "max_pooling_2d", (1, 1, 6), (16, 16), 0,
             [image, zeros(2, 3, 10, 15), *map(i32, (2, 3, 20, 30, 2, 2, 0))], {1: pooled},
             (beyond(18, "w_out >= W_out .. ", "", 35, 44, says="race"), between(43, r"n \* C", "0 * C",
             44))),
        Case(LEET + "2D Convolution/2D Convolution.cu", "convolution_kernel", (2, 2), (16, 16), 0,
             [image[0, 0].copy(), mask, zeros(18, 26), *map(i32, (20, 30, 3, 5, 18, 26))],
             {2: np.asarray(convolved)},
             (beyond(10, "i < output_rows &&", "", 16, 20), beyond(12, "<", "<=", 16))),
        Case(LECTURES + "lecture_008/privatization2.cu", "windowSumPrivatized", 3, 256, 0, [x[:700],
             zeros(700), i32(700), i32(1)],
             {1: x[:700]}, (beyond(24, "1024", "200", 28),)),
    ]  # fmt: skip


def tiles() -> list[Case]:
    a, b = floats(64, 64), floats(64, 64)
    product = a @ b
    wall = draw.integers(0, 10, (5, 400)).astype(i32)
    best = wall[0]
    for row in wall[1:]:
        sides = np.pad(best, 1, mode="edge")
        best = row + np.minimum(np.minimum(sides[:-2], best), sides[2:])
    size = (i32(64), i32(64), i32(64), f32(1))
    return [
        Case(LECTURES + "lecture_008/tiling.cu", "matrixMulTiled", (4, 4), (16, 16), 0, [a, b, zeros(64,
             64), i32(64)], {2: product},
             (barrier(28, 31), barrier(33, 26, 27), beyond(17, r"Bs\[TILE_WIDTH\]", "Bs[TILE_WIDTH - 1]",
             27, 31))),
        Case(SAMPLES + "0_Introduction/matrixMul_nvrtc/matrixMul_kernel.cu", "matrixMulCUDA_block16", (4,
             4), (16, 16), 0,
             [zeros(64, 64), a, b, i32(64), i32(64)], {0: product}, (
                 barrier(100, 107), barrier(113, 96, 97), unwritten(97, "^", "if (ty != 3)", 107))),
        Case(SGEMM + "3_kernel_shared_mem_blocking.cuh", "sgemm_shared_mem_block<16>", (4, 4), 256, 0,
             [*size, a, b, f32(0), zeros(64, 64)], {7: product},
             (barrier(42, 48, 49), barrier(53, 38, 39), between(31, r"cRow \* BLOCKSIZE",
             "cRow / 2 * BLOCKSIZE", 55, 56))),
        Case(SGEMM + "6_kernel_vectorize.cuh", "sgemmVectorize<32, 32, 8, 4, 4>", (2, 2), 64, 0, [*size, a,
             b, f32(0), zeros(64, 64)],
             {7: product}, (barrier(56, 66, 69), barrier(78, 49, 50, 51, 52, 54, 55),
                            beyond(48, r"innerColA \* 4\]", "innerColA * 4 + 1]", 47, 48,
                            says="at address"))),
        Case(RODINIA + "pathfinder/pathfinder.cu", "dynproc_kernel", 2, 256, 0,
             [i32(4), wall[1:].copy(), wall[0].copy(), zeros(400, dtype=i32), i32(400), i32(5), i32(0),
             i32(4)], {3: best},
             (barrier(136, 143, 144, 145), barrier(152, 156), barrier(157, 143, 144, 145, 156))),
        Case(RODINIA + "lud/cuda/lud_kernel.cu", "lud_diagonal", 1, 16, 0, [diagonal(), i32(16), i32(0)],
             {0: factored(diagonal())},
             (barrier(26, 31, 32), barrier(35, 39), barrier(41, 31, 32))),
    ]  # fmt: skip


def diagonal() -> np.ndarray:
    return (np.arange(256, dtype=f32).reshape(16, 16) % 7 + 16 * np.eye(16, dtype=f32)).astype(f32)


def factored(matrix: np.ndarray) -> np.ndarray:
    lu = matrix.astype(float)
    for k in range(len(lu)):
        lu[k + 1 :, k] /= lu[k, k]
        lu[k + 1 :, k + 1 :] -= np.outer(lu[k + 1 :, k], lu[k, k + 1 :])
    return lu


def others() -> list[Case]:
    signal = floats(256)
    walsh = signal.astype(float)
    for step in (1 << s for s in range(8)):
        pairs = walsh.reshape(-1, 2, step)
        walsh = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).ravel()
    grid = zeros(16, 16, dtype=i32)
    reached = np.full(256, -1, i32)
    frontier = np.array([0, 17, 100, 255], i32)
    reached[frontier] = 0
    near = reached.copy()
    for cell in frontier:
        r, c = divmod(int(cell), 16)
        for rr, cc in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
            if 0 <= rr < 16 and 0 <= cc < 16 and near[rr * 16 + cc] == -1:
                near[rr * 16 + cc] = 1
    many, matrix = floats(2048), floats(96, 64)
    sums = many.reshape(4, 512).sum(1)
    sums[0] = many.sum()
    keys = draw.permutation(1 << 16)[:1024].astype(u32)
    parts = draw.integers(0, 99, 30 * 256).astype(u32)
    return [
        Case(SAMPLES + "5_Domain_Specific/fastWalshTransform/fastWalshTransform_kernel.cuh",
             "fwtBatch1Kernel", 1, 64, 1024,
             [zeros(256), signal, i32(8)], {0: walsh}, (
                 barrier(69, 70, 71, 72, 73, 83, 84, 86, 87), barrier(105, 108), unwritten(55, "pos < N",
                 "pos < N - 1", 73))),
        Case(SAMPLES + "2_Concepts_and_Techniques/threadFenceReduction/threadFenceReduction_kernel.cuh",
             "reduceSinglePass<256, true>", 4, 256, 1024, [many, zeros(4), u32(2048)], {1: sums}, (
                 Bug("no fence", 174, r"__threadfence\(\)", "", "race", (117, 192)),
                 barrier(184, 187), lanes(72, r"cg::sync\(tile32\)", "", 68, 70, 79, says="race"),
                 plain(178, r"atomicInc\(&(\w+), .*\)", r"\1++"))),
        Case(SAMPLES + "2_Concepts_and_Techniques/sortingNetworks/bitonicSort.cu", "bitonicSortShared", 1,
             512, 0,
             [zeros(1024, dtype=u32), zeros(1024, dtype=u32), keys, np.arange(1024, dtype=u32), u32(1024),
             u32(1)],
             {0: np.sort(keys)}, (barrier(66, *range(42, 52), 68), barrier(81, *range(42, 52), 77, 82, 83,
             84, 85),
                                 beyond(48, "SHARED_SIZE_LIMIT", "SHARED_SIZE_LIMIT - 1", 58)), COMMON),
        Case(SAMPLES + "6_Performance/transpose/transpose.cu", "transposeNoBankConflicts", (2, 3), (32, 16),
             0,
             [zeros(64, 96), matrix, i32(64), i32(96)], {0: matrix.T}, (
                 barrier(184, 187), beyond(170, r"\[TILE_DIM\]", "[TILE_DIM - 1]", 181, 187),
                 between(178, r"yIndex\)\*height", "yIndex / 2)*height", 187), unwritten(181, "^",
                 "if (threadIdx.y)", 187)), COMMON),
        Case(SAMPLES + "2_Concepts_and_Techniques/histogram/histogram256.cu", "mergeHistogram256Kernel",
             256, 256, 0,
             [zeros(256, dtype=u32), parts, u32(30)], {0: parts.reshape(30, 256).sum(0)},
             (barrier(116, 119), between(124, "blockIdx.x", "blockIdx.x / 2")), COMMON),
        Case(LEET + "BFS Shortest Path/BFS Shortest Path.cu", "bfs_kernel", 2, 2, 0,
             [grid, reached, i32(16), i32(16), frontier, i32(4), zeros(256, dtype=i32), zeros(1, dtype=i32),
             i32(0)], {1: near},
             (plain(32, r"atomicAdd\(next_size, 1\)", "(*next_size)++"),
              plain(27, r"atomicCAS\(&(.*), expected, (.*)\)", r"\1; if (old == -1) \1 = \2"))),
    ]  # fmt: skip
