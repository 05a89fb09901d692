"""Model cards: the README.md of each folder of weights."""
