"""The old name of `xlora-bench spectrum`."""

from xlora_bench.system.moved import say_moved

if __name__ == "__main__":
    say_moved("xlora-bench spectrum")
