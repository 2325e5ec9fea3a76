"""Benchmarks: figures for people, never tests. ``make bench`` prints one JSON line for each.

Run on a quiet machine. Every figure is the median of rounds that are interleaved, so that a change of the
machine's speed meets them all; beside the rounds runs a yardstick, plain asyncio, and ``ratio`` is to its median.
"""
