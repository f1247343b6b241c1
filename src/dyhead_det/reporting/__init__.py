"""What a run tells people: progress, pictures, metrics, report."""
