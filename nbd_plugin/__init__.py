"""What nbdkit loads."""
