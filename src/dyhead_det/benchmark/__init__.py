"""How fast a checkpoint and the files made from it are, and what memory they take."""
