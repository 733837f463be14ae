"""The metrics that are counted of a launch on a GPU, by Nsight Compute's names."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_gpuperf.backends.base import Counted, Traffic

# Requests, sectors or wavefronts, and bank conflicts of each kind of access, in ``Program.trace``'s order.
TRAFFIC: tuple[tuple[str, ...], ...] = (
    (
        "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum",
        "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
    ),
    (
        "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum",
        "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
    ),
    (
        "smsp__inst_executed_op_shared_ld.sum",
        "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum",
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum",
    ),
    (
        "smsp__inst_executed_op_shared_st.sum",
        "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum",
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum",
    ),
)
FIGURES: Mapping[str, str] = {
    "dram_bytes_read": "dram__bytes_read.sum",
    "dram_bytes_written": "dram__bytes_write.sum",
    "instructions": "smsp__inst_executed.sum",
}
OCCUPANCY = "sm__warps_active.avg.pct_of_peak_sustained_active"
CYCLES = "sm__cycles_active.sum"  # what an occupancy is the mean over
METRICS = (*(metric for access in TRAFFIC for metric in access), *FIGURES.values(), OCCUPANCY, CYCLES)


def counted(name: str, values: Mapping[str, float], launches: int = 1) -> Counted:
    """Return what so many launches of ``name`` did, by the values of METRICS."""
    figures = {figure: values[metric] for figure, metric in FIGURES.items()}
    traffic = tuple(_traffic(values, *metrics) for metrics in TRAFFIC)
    figures["occupancy"] = values[OCCUPANCY] / 100
    return Counted(name, traffic, figures, values[CYCLES], launches)


def _traffic(values: Mapping[str, float], requests: str, moved: str, conflicts: str = "") -> Traffic:
    """Return requests, sectors or wavefronts, and the fewest that could serve them, of one kind of access."""
    wasted = values[conflicts] if conflicts else 0.0
    return round(values[requests]), round(values[moved]), round(values[moved] - wasted)
