"""Stand-in for `torchvision.transforms.functional`; detection calls nothing of it."""
