"""Everything that uses ComfyUI's model management, patchers and samplers."""
