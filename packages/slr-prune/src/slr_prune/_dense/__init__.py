"""Detection and segmentation: generated scenes, folder layouts, small networks, their measures."""
