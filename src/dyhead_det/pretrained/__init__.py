"""Other people's weights to start from."""
