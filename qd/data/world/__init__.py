"""The built-in world: composes, plays, degrades and captions music."""
