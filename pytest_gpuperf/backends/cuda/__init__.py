"""A CUDA GPU, through PyCUDA."""
