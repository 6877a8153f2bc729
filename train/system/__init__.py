"""What the program needs of the machine and of libraries; it knows nothing of capsules."""
