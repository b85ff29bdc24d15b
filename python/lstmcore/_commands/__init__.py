"""The commands of ``python -m lstmcore``."""
