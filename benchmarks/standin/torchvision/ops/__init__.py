"""Stand-in for `torchvision.ops`."""
