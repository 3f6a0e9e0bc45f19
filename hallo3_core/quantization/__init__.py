"""Weights in few bits, in the layouts of ComfyUI's kernel library comfy-kitchen."""
