"""What brings a guest its disk, and takes it away."""
