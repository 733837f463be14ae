"""A GPU emulated on the CPU: kernels are compiled with g++ and run block by block."""
