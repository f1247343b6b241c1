"""How the operators are computed fast in plain PyTorch."""
