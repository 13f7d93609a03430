"""What a person asks for, a command each; only these know all rooms."""
