"""Measures an installation from outside, beside what its parts could do alone. Nothing imports it."""
