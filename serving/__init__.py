"""RUN: engines, processes, fleet and gateway."""
