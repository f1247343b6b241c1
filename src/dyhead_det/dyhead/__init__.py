"""Dynamic Head: the block, the stack, the paper's tensor, and the same computed fast."""
