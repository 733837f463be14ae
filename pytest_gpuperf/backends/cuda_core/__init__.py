"""A CUDA GPU, through cuda.core and NVRTC: all wheels, and no compiler on the machine."""
