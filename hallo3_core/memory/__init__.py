"""Plans how much memory a video needs, and moves networks between main memory and the device."""
