"""The machine beneath: devices, files, folders, terminal, signals; nothing of flowers."""
