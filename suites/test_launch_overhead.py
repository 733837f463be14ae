"""What a launch costs the host: from the call until the device has nothing left to do."""


def test_launch_and_wait(gpu, kernels, benchmark):
    empty = kernels["empty.cu"].empty[1, 1]

    @benchmark
    def launch():
        empty()
        gpu.synchronize()
