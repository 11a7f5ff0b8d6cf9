"""The old name of `xlora-bench verify`."""

from xlora_bench.system.moved import say_moved

if __name__ == "__main__":
    say_moved("xlora-bench verify")
