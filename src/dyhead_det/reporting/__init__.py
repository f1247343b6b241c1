"""Progress bar, metrics files, pictures and report of a run."""
