"""Transcendent memory: pools of compressed pages in shared memory that outlives the process."""
