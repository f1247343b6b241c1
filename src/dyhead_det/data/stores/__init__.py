"""Where image files lie: in a folder, in tar archives, behind a URL; each read by its name."""
