"""Stand-in for `torchvision.transforms`: facenet-pytorch imports it for cropping faces only."""
