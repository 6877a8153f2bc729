"""Several processes of one run: who is there, when all stop, and how to start them here."""
