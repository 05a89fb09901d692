"""A setting's default, range, unit and help text, stated once, and the check of its value."""
