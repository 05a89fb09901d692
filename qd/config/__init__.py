"""Every setting: default, range, unit and help text; YAML files and overrides become a checked dataclass."""
