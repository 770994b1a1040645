"""Measurements of evener beside its peers, each pair in the same run. See docs/benchmarks.md."""
