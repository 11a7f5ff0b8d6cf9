"""`python -m xlora_bench`: the same program as `xlora-bench`."""

from xlora_bench.cli.main import main

if __name__ == "__main__":
    main()
