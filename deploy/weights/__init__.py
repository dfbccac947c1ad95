"""Bytes: where they may come from, how they get here, and the proof that they are the locked ones."""
