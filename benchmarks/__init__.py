"""Benchmarks: `asv run` follows them from commit to commit; `ratios` sets them beside the peers."""
