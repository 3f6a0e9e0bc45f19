"""One clip on several cards, with torch.distributed."""
