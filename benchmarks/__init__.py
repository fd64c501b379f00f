"""Measurements and tests that are too long for the test suite.

Each of these is a command, ``python -m benchmarks.NAME``; its docstring says what it does:

ratios          the ratios of speed that the README promises
peers           time and memory beside other libraries
statistics      the values as samples
device          a GPU's bits beside the CPU's, and its speed; the CPU's by threads
fuzz_layouts    random initializers, types and layouts
fuzz_files      random and damaged recipes, headers and files
fuzz_processes  random signals, forks and threads

``asv run`` measures the time, memory and throughput of a commit, by `dtypes`, `sizes`, `layouts`,
`startup` and `command_line`. asv takes a smaller number to be better, also for elements per second.
So compare commits with ``--bench time_``, and on a shared machine look at the results of one
thread.
"""
