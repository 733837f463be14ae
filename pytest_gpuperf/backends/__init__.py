"""Where a kernel runs: the CUDA device through PyCUDA, or an emulation on the CPU."""
