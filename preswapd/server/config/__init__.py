"""What an instance is told to be: every key once, files, options, and what is shown of them."""
