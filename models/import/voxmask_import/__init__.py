"""Turns an nnU-Net v2 result folder into `model.onnx` and `card.json`."""
