"""The shipped models: their files (`assets/`) and the stages that train them."""
