"""Commands that start nothing, one module per subject."""
