"""From wishes to named bytes: what a source has, which of it is wanted, and what it says of itself."""
