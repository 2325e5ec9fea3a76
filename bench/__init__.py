"""Benchmarks: figures for people, never tests. ``make bench`` prints one JSON line for each.

Run on a quiet machine. Every figure is the median of rounds that are interleaved, so that a change of the
machine's speed meets them all. In every round runs a yardstick: for the core plain asyncio, for journal and
engine plain fenced statements on psycopg. ``ratio`` is to it, and tells more than the absolute figures do.
Where a line has a bound, ``judged`` says what is held against it.
"""
