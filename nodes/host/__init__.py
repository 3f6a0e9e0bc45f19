"""Everything that touches ComfyUI's model management, patchers and samplers."""
