"""The built-in world, second edition: composes and renders captioned music, with many good ways to satisfy a prompt."""
