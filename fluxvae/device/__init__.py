"""The tools of a machine: Swift, compilers, benchmarks, power."""
