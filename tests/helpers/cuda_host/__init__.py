"""The host double of a CUDA device: unmodified .cu files, compiled by the C++ compiler and executed on the CPU.

`shim/` is what a kernel sees: the words of CUDA C++ and its built-in functions. `runtime/` runs it: one OS thread a
resident block, one fiber a CUDA thread. `host_module.py` compiles, checks the arguments and launches; `host_backend.py`
is the CuPy backend over it.
"""
