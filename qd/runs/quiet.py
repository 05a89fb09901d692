"""What the libraries print beside the project's own output, silenced."""

from __future__ import annotations

import logging
import warnings

import transformers


def quieten_libraries() -> None:
    """Silences what the libraries say about things that are meant."""
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
