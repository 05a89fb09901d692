"""The second edition of the built-in world: richer music, and prompts that leave room."""
