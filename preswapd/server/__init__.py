"""The server process: configuration, start, and life inside nbdkit."""
