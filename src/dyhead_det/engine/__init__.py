"""What takes time, files and devices: training, evaluation, prediction."""
