"""The ATSS detector and its loss."""
