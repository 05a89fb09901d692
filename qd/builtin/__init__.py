"""The built-in world: captioned music that the project composes itself, and the models trained on it."""
