"""A believable prefecture that publishes readings, and replay of recorded ones."""
