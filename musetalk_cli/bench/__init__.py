"""Where every millisecond goes, on synthetic input: needs no file and no ffmpeg."""

from musetalk_cli.bench.run import BenchOptions, BenchResult, bench

__all__ = ["BenchOptions", "BenchResult", "bench"]
