"""Pages for a browser: one file that needs nothing else, neither network nor other files."""
