"""The networks, their losses, training loop, bitstream and weights. Needs PyTorch, NumPy, OpenCV, pyarrow, safetensors."""
