"""What changes seconds and no result: kernels, compiling, precision, threads, memory."""
