"""One swap device: where each of its pages is, and the requests of its guest."""
