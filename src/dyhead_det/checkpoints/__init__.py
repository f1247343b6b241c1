"""Every file of weights, our own and foreign, read without running code."""
