"""What the 12 numbers do not tell: where a detector errs, and which score to ask for."""
