"""The gathered deformable convolution in kernels of Triton, for GPUs."""
