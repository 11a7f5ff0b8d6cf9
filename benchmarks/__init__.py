"""What the speed of xlora_bench is measured by; `python -m benchmarks` runs all of it. Figures: docs/speed.md."""
