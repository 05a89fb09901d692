"""Figures, tables, the report page, model cards, and the paper's claims."""
