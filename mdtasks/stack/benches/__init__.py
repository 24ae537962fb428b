"""Benchmarks that `mdtasks bench` runs."""
