"""From a plan and memory to filled memory: layouts, threads, kernels for the CPU and for GPUs."""
