"""What changed: upstream since the lock, and the lock since earlier ones."""
