"""The networks, their losses, training loop, bitstream, weights. Needs PyTorch, NumPy, OpenCV, pyarrow, safetensors."""
