"""What changes a running server: devices, settings, shrink, swapoff."""
