"""A checkpoint as an ONNX file."""
