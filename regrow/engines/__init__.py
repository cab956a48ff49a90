"""Online learning: plain PyTorch, which defines the meaning; one fused loop; many seeds side by side."""
