"""What a launch costs the host: from the call until the device has nothing left to do."""

import pytest


# Some microseconds of the host's: 3 to 15 % apart between processes and 17 % between hosts of one kind, so
# this is for what costs as much again, such as a check or a wait in every launch.
@pytest.mark.gpuperf(tolerance=0.5)
def test_launch_and_wait(gpu, kernels, benchmark):
    empty = kernels["empty.cu"].empty[1, 1]

    @benchmark
    def launch():
        empty()
        gpu.synchronize()
