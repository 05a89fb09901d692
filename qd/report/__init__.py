"""The paper's figures and tables, drawn from a results file alone."""
