"""Benchmarks of the speed of xlora_bench; `python -m benchmarks` runs all of them. Results: docs/speed.md."""
