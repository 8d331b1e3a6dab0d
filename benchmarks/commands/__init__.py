"""The commands of `python -m benchmarks`, one in each module. What is heavy is imported when a command runs: `--help`
imports them all.
"""
