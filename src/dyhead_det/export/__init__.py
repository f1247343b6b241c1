"""A checkpoint as an ONNX file: one image or a batch, float32, float16 or 8 bits."""
