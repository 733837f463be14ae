"""A GPU that is not here: kernels are compiled for it, and nothing runs."""
