"""The configuration of an instance: its files, the options over them, and both as one file."""
