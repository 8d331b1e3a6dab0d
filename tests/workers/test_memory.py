"""Freed memory goes back to the system."""

from __future__ import annotations

import psutil

from workers import memory

PIECE_BYTES, PIECES = 50_000, 4000  # each too small for glibc to map it by itself


def test_what_was_freed_between_pieces_in_use_is_given_back() -> None:
    process = psutil.Process()
    pieces = [bytes(PIECE_BYTES) for _ in range(PIECES)]
    for piece in range(len(pieces)):
        if piece % 10:
            pieces[piece] = b""
    before = process.memory_info().rss
    memory.give_back()
    assert before - process.memory_info().rss > PIECES * PIECE_BYTES / 2
