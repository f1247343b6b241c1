"""A data set looked at before training: what is wrong with it, what it holds, how it looks."""
