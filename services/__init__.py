"""The long-running processes, one folder each, and the command line that starts them."""
