"""Whole clusters in one process: real workers, a journal in memory, one virtual clock, and faults."""
