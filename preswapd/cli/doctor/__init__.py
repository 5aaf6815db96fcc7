"""What is wrong on this host, and how to put it right."""
