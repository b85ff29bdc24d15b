"""Models and runs in files."""
