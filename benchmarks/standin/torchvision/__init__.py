"""What facenet-pytorch's MTCNN takes from torchvision, of which there is no CPU build here."""
