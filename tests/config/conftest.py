"""Names of models that configs may state."""

from __future__ import annotations

import pytest

from qd.config import evaluation as evaluation_schema
from qd.config import train as train_schema


@pytest.fixture
def models(monkeypatch):
    """Replaces the shipped models: only these names exist."""

    def known(name):
        if name.startswith("facebook/musicgen-"):
            return
        if name not in ("base", "builtin", "builtin-heldout"):
            raise ValueError(f"no model {name!r}")

    monkeypatch.setattr(train_schema, "resolve_model", known)
    monkeypatch.setattr(evaluation_schema, "check_embedder", known)
