"""The commands of `python -m training`, one in each module. What is heavy is imported when a command runs: `--help`
imports them all.
"""
