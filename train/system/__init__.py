"""What the program needs of the machine, and knows nothing of capsules: files, text, errors."""
