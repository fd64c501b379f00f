"""Proof, in four commands.

`asv run` follows times, memory and throughput from commit to commit; ``python -m
benchmarks.peers`` sets numinit beside other libraries; ``python -m benchmarks.statistics`` looks
at the values; ``python -m benchmarks.ratios`` says which promises of the README do not hold here.

asv takes less to be better, also where elements per second are tracked: compare commits by
`--bench time_`, on a shared machine by the cells of one thread. For asv: dtypes, sizes, threads, layouts, startup and command_line.
"""
