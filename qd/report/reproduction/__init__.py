"""The paper's runs, and the verdict on each of its claims."""
