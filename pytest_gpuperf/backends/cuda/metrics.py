"""The metrics that are counted of a launch on a GPU, by Nsight Compute's names."""

from __future__ import annotations

from collections.abc import Mapping

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
METRICS = (*(metric for access in TRAFFIC for metric in access), *FIGURES.values(), OCCUPANCY)
