"""Where the time and the memory of a training step go, looked at from outside: hooks and PyTorch's profiler."""
