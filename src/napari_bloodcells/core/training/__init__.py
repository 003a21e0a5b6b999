"""What ``train`` is made of: data, recipe, augmentation, the loop, and what a training leaves behind."""
