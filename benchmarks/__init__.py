"""Benchmarks: each module measures one thing with `measure() -> dict` and says what it is held against."""
