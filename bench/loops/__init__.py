"""The same training loop in lstmcore and in PyTorch."""
