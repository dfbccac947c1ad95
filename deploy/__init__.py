"""DECIDE: nouns, pure decisions, Hub and disk. Starts no server, owns no process."""

__version__ = "0.1.0"
